from mmpretrain.models import VisionTransformer

from ...depth import AdaptiveDepth, split
from ...errors import InputError
from ...registry import MODELS


@MODELS.register_module()
class ADNVisionTransformer(AdaptiveDepth, VisionTransformer):
    """Vision Transformer with adaptive depth: mmpretrain's VisionTransformer and three arguments more.

    `group` successive blocks are what a stage is elsewhere. The final norm serves both sub-paths.

    Args:
        group (int): Blocks to a stage; the number of blocks is a multiple of it.
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each stage always run. By default
            the first half, rounded up: (2, 2, 2, 2) of ViT-B's (3, 3, 3, 3).
        **kwargs: What mmpretrain's VisionTransformer takes.
    """

    def __init__(self, *args, group=3, **kwargs):
        self.group = group
        super().__init__(*args, **kwargs)

    def sub_paths(self, mandatory):
        blocks, group = list(self.layers), self.group
        if type(group) is not int or not 1 <= group <= len(blocks) or len(blocks) % group:
            raise InputError(f'group={group!r}: give a divisor of the {len(blocks)} blocks')
        return split([blocks[i : i + group] for i in range(0, len(blocks), group)], mandatory)

    def shorten(self, kept, args):
        left, last = kept(self.layers), len(self.layers) - 1
        outputs = [sum(k <= i for k in left) - (i <= last) for i in self.out_indices]
        # After a skipped block come the features of the one before. The stock class gives them out once,
        # and with the final norm if that block is now the last one.
        normed = self.final_norm and len(left) - 1 in outputs and last not in self.out_indices
        if normed or len(set(outputs)) < len(outputs):
            raise InputError(
                f'out_indices={list(self.out_indices)} at skip={self.skip!r} are features after skipped '
                'blocks, which an ordinary VisionTransformer does not give; choose last blocks of groups, '
                f'{self.group - 1}, {2 * self.group - 1}, ...'
            )
        self.num_layers, self.out_indices = len(left), outputs
        self.frozen_stages = sum(k < self.frozen_stages for k in left) if self.frozen_stages > 0 else -1
        self.arch_settings = {**self.arch_settings, 'num_layers': len(left)}
        del self.group
        args = {**args, 'arch': self.arch_settings}
        args.update({name: getattr(self, name) for name in ('out_indices', 'frozen_stages') if name in args})
        if isinstance(args.get('layer_cfgs'), (list, tuple)):
            args['layer_cfgs'] = [args['layer_cfgs'][k] for k in left]
        return args, ''

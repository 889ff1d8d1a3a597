from mmpretrain.models import SwinTransformer

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


@MODELS.register_module()
class ADNSwinTransformer(AdaptiveDepth, SwinTransformer):
    """Swin Transformer with adaptive depth: mmpretrain's SwinTransformer and two arguments more.

    The norm of a patch merging goes with the flag of the stage that it feeds. The norms of the patch
    embedding and of the outputs serve both sub-paths.

    Args:
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each stage always run. By default
            the first half, rounded up: (1, 1, 3, 1) of Swin-T's (2, 2, 6, 2).
        **kwargs: What mmpretrain's SwinTransformer takes. For detection, `pad_small_map=True`.
    """

    def sub_paths(self, mandatory):
        paths = split([stage.blocks for stage in self.stages], mandatory)
        for stage, (required, _) in zip(self.stages, paths[1:], strict=False):
            required.append(stage.downsample)
        return paths

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # mmpretrain renames what its first checkpoints hold, but for its own class only.
        for name in list(state_dict):
            if name.endswith('.attn_mask'):
                del state_dict[name]
            elif name.startswith(f'{prefix}norm.'):
                new = name.replace('norm.', f'norm{len(self.stages) - 1}.', 1)
                state_dict[new] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

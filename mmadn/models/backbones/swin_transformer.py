from collections.abc import Sequence

from mmpretrain.models import SwinTransformer

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


@MODELS.register_module()
class ADNSwinTransformer(AdaptiveDepth, SwinTransformer):
    """mmpretrain's Swin Transformer with adaptive depth.

    The norm of a patch merging follows the switch of the stage that it feeds. The norms of the patch
    embedding and of the outputs serve both sub-paths.

    Args:
        skip: The depth at the start, such as 'TTFF'.
        mandatory: How many blocks of each stage always run, by default (1, 1, 3, 1) of the
            (2, 2, 6, 2) blocks of Swin-T.
        skip_aware_norms: Whether the norms of mandatory blocks have two copies, see `AdaptiveDepth`.
        fixed: Trains the depth `skip` alone, see `AdaptiveDepth`.
        *args, **kwargs: What mmpretrain's SwinTransformer takes; a detector needs `pad_small_map=True`.
    """

    def sub_paths(self, mandatory: Sequence[int] | None) -> list[tuple[list, list]]:
        paths = split([stage.blocks for stage in self.stages], mandatory)
        for stage, (required, _) in zip(self.stages, paths[1:], strict=False):
            required.append(stage.downsample)
        return paths

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # mmpretrain renames the tensors of its first checkpoints, but for its own class only.
        for name in list(state_dict):
            if name.endswith('.attn_mask'):
                del state_dict[name]
            elif name.startswith(f'{prefix}norm.'):
                new = name.replace('norm.', f'norm{len(self.stages) - 1}.', 1)
                state_dict[new] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

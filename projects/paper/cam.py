"""Class activation maps at every block of a stage, at several depths (paper, Fig. 8)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmadn.depth import AdaptiveDepth, adaptive_backbone, is_skipped, unwrap
from mmadn.errors import InputError, MissingPackageError, NotAdaptiveError

from .blocks import Block, evaluating, residual_blocks

METHODS = {
    'gradcam': 'GradCAM',
    'gradcam++': 'GradCAMPlusPlus',
    'xgradcam': 'XGradCAM',
    'layercam': 'LayerCAM',
    'eigencam': 'EigenCAM',
    'eigengradcam': 'EigenGradCAM',
}


def grad_cam() -> ModuleType:
    """The library that computes the maps; raises ImportError with what to install."""
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise MissingPackageError(
            f'activation maps need a package that mmadn does without ({error}): pip install grad-cam==1.5.7'
        ) from error
    return pytorch_grad_cam


@dataclass
class DepthMaps:
    """What one depth makes of an image.

    Args:
        skip: The depth.
        probabilities: Of the classes, the softmax of the logits.
        category: The class whose activation the maps show.
        maps: The map of each block by its name in the backbone, float32 of the shape (H, W) of the network's
            input, in [0, 1]; None for a block that this depth skips.
    """

    skip: str
    probabilities: np.ndarray
    category: int
    maps: dict[str, np.ndarray | None]

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def output(self) -> np.ndarray:
        """The map of the last block that runs, whose features are the output of the stage."""
        return [each for each in self.maps.values() if each is not None][-1]


@torch.inference_mode(False)
@torch.enable_grad()
def activation_maps(
    model: nn.Module,
    image: Tensor,
    stage: int = 3,
    skips: Sequence[str] = ('super', 'base'),
    category: int | str | None = None,
    method: str = 'gradcam',
) -> list[DepthMaps]:
    """Maps of where each block of a stage sees evidence for a class, at several depths (paper, Fig. 8).

    Each map is scaled so that its smallest value becomes 0 and its largest 1: maps can be compared in shape
    and not in strength. A map is 0 everywhere if nothing in the image speaks for the class. So is the map of
    the last block of a ViT that classifies by its class token, because after that block nothing looks at the
    other tokens. "eigencam" depends on no class; its sign, like that of "eigengradcam", is arbitrary.

    Args:
        model: A classifier with adaptive depth. It is left as it was, gradients included.
        image: One image of shape (3, H, W) as a test pipeline gives it; see `read_image`.
        stage: Which of the stages that have a skippable sub-path, counted from 1.
        skips: The depths, see `set_skip`.
        category: The number or the name of the class. By default the class that each depth predicts.
        method: One of `METHODS`, which are those of mmpretrain's `vis_cam.py`.

    Raises:
        ImportError: The library grad-cam is not installed.
        TypeError: The model is no classifier or has no adaptive depth.
        ValueError: The stage, a depth, the class or the method does not exist.
    """
    grad_cam()  # fails at once where it is not installed
    model = unwrap(model)
    if not isinstance(model, ImageClassifier) or not model.with_head:
        raise NotAdaptiveError(
            f'{type(model).__name__} does not classify images; give a classifier of mmpretrain'
        )
    backbone = adaptive_backbone(model)
    if method not in METHODS:
        raise InputError(f'method={method!r}: give one of {", ".join(METHODS)}')
    blocks = {block.name: block.module for block in stage_blocks(backbone, stage)}
    category = class_number(model, category)
    results = []
    with evaluating(model), _frozen(model), _on_their_grid(backbone, blocks.values()) as reshape:
        inputs = model.data_preprocessor({'inputs': [image]}, False)['inputs'].clone().requires_grad_()
        for skip in dict.fromkeys(map(backbone.parse_skip, skips)):
            with backbone.skipping(skip):
                running = {name: block for name, block in blocks.items() if not is_skipped(block)}
                logits, maps = _maps(
                    model, list(running.values()), inputs, category, METHODS[method], reshape
                )
            probabilities = logits.softmax(0).cpu().numpy()
            shown = int(probabilities.argmax()) if category is None else category
            maps = dict(zip(running, maps, strict=True))
            results.append(DepthMaps(skip, probabilities, shown, {name: maps.get(name) for name in blocks}))
    return results


def _maps(
    model: nn.Module,
    blocks: list[nn.Module],
    inputs: Tensor,
    category: int | None,
    method: str,
    reshape: Callable[[Tensor], Tensor],
) -> tuple[Tensor, np.ndarray]:
    """The logits of one image, and the map of each block from the same pass, scaled to [0, 1]."""
    library = grad_cam()
    target = library.utils.model_targets.ClassifierOutputTarget
    cam = getattr(library, method)(_Logits(model), blocks, reshape)
    try:
        # The library would give the mean of the blocks' maps.
        cam.aggregate_multi_layers = lambda maps: np.concatenate(maps, axis=1)[0]
        maps = library.utils.image.scale_cam_image(
            cam(inputs, None if category is None else [target(category)])
        )
    finally:
        cam.activations_and_grads.release()
    return cam.outputs[0].detach(), maps


def stage_blocks(backbone: AdaptiveDepth, stage: int) -> list[Block]:
    """The residual blocks of a stage in their order; see `residual_blocks`.

    Raises:
        ValueError: There is no such stage.
    """
    stages = backbone.num_skippable_stages
    if type(stage) is not int or not 1 <= stage <= stages:
        raise InputError(
            f'stage={stage!r}: the stages of {type(backbone).__name__} that have a skippable sub-path are '
            f'{", ".join(map(str, range(1, stages + 1)))}'
        )
    return [block for block in residual_blocks(backbone) if block.stage == stage]


def class_names(model: nn.Module) -> list[str]:
    """The names of a classifier's classes, or their numbers where its checkpoint tells none."""
    names = (getattr(model, 'dataset_meta', None) or {}).get('classes')
    return list(map(str, names or range(model.head.num_classes)))


def class_number(model: nn.Module, category: int | str | None) -> int | None:
    """The number of a class, given by its name, by one of its synonyms "tench, Tinca tinca", or by a number.

    Raises:
        ValueError: There is no such class, or several go by this name.
    """
    names = class_names(model)
    if category is None or type(category) is int and 0 <= category < len(names):
        return category
    same = [i for i, name in enumerate(names) if name == category]
    same = same or [i for i, name in enumerate(names) if str(category) in name.split(', ')]
    if len(same) == 1:
        return same[0]
    if same:
        raise InputError(f'category={category!r} is the name of the classes {same}; give a number')
    if str(category).isdecimal() and int(category) < len(names):
        return int(category)
    near = get_close_matches(str(category), names, 3, 0.5) or names[:3]
    raise InputError(
        f'category={category!r}: give a number from 0 to {len(names) - 1} or the name of a class, such as '
        f'{"; ".join(near)}'
    )


class _Logits(nn.Module):
    """A classifier as the library calls one: a batch in, logits out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs, mode='tensor')

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Does nothing: the weights get no gradients here, and those of a training stay."""


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within the block no parameter requires a gradient; afterwards those do that did before."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


@contextmanager
def _on_their_grid(
    backbone: AdaptiveDepth, blocks: Iterable[nn.Module]
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yields a function that turns the features of a block into maps of shape (N, C, H, W).

    The features may be tokens of shape (N, L, C); a class token among them is the first and is dropped.
    """
    grid = []

    def embedded(module, args, output):
        grid[:] = output[1]

    def called(module, args):
        if len(args) > 1:  # Swin, whose patches are merged after the embedding
            grid[:] = args[1]

    def reshape(features):
        if features.ndim == 4:
            return features
        height, width = grid
        return features[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))

    handles = [block.register_forward_pre_hook(called) for block in blocks]
    if hasattr(backbone, 'patch_embed'):
        handles.append(backbone.patch_embed.register_forward_hook(embedded))
    try:
        yield reshape
    finally:
        for handle in handles:
            handle.remove()


def read_image(cfg: Config, path: str | Path) -> Tensor:
    """An image as the test pipeline of a config gives it, of shape (3, H, W), its channels in BGR.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no image.
    """
    content = Path(path).read_bytes()
    if not content or mmcv.imfrombytes(content) is None:
        raise InputError(f'{path} cannot be read as an image')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        return Compose(cfg.test_dataloader.dataset.pipeline)({'img_path': str(path)})['inputs']

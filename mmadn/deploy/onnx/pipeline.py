"""What a file has to know about its config, so that a session takes images and gives what is in them."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from mmpretrain.models.heads import ClsHead
from torch import nn

from ...utils.quiet_imports import import_quietly
from .tracing import is_segmentor

LIBRARIES = ('mmcv', 'mmdet', 'mmpretrain', 'mmseg')  # whose classes of a name do the same to an image
# What does not change an image, and what a session does by itself.
PASSED = ('LoadAnnotations', 'PackInputs', 'PackDetInputs', 'PackSegInputs')
PREPROCESSORS = ('ClsDataPreprocessor', 'DetDataPreprocessor', 'ImgDataPreprocessor', 'SegDataPreProcessor')
RESIZES = (('cv2', 'bilinear'), ('pillow', 'bilinear'), ('pillow', 'bicubic'))


class _Unknown(Exception):
    """A setting that a session does not know; the message says which."""


def describe_preprocessing(cfg: Config | None, model: nn.Module) -> dict:
    """`preprocess`, the steps from an image to the input of the network, or `no_preprocess`, why not.

    Nothing is guessed: with a single step that a session does not know, there is no `preprocess`.

    Args:
        cfg: The config of the model.
    """
    try:
        if cfg is None:
            raise _Unknown('it was exported without cfg')
        steps = [step for step in map(_step, _test_pipeline(cfg)) if step]
        batching = _batching(model)
        finds_boxes = type(model.data_preprocessor).__name__ == 'DetDataPreprocessor'
        if finds_boxes and any(step['type'] == 'CenterCrop' for step in steps):
            # Nor does mmdet know where the crop was.
            raise _Unknown('its test pipeline crops, so that boxes could not be put back')
        return {'preprocess': {'steps': steps, **batching}}
    except _Unknown as unknown:
        return {'no_preprocess': str(unknown)}


def describe_outputs(model: nn.Module) -> dict:
    """`probabilities`, `mask_threshold` and `pixels`, where a model has them."""
    about, head = {}, getattr(model, 'head', None)
    if is_segmentor(model) and not model.align_corners and model.out_channels > 1:
        about['pixels'] = 'argmax'  # of logits that are resized to the image
    if isinstance(head, ClsHead) and type(head)._get_predictions is ClsHead._get_predictions:
        about['probabilities'] = 'softmax'
    settings = (getattr(model, 'test_cfg', None) or {}).get('rcnn') or {}
    if settings.get('mask_thr_binary', -1) >= 0:  # below 0 mmdet gives probabilities instead of masks
        about['mask_threshold'] = settings['mask_thr_binary']
    return about


def _test_pipeline(cfg: Config) -> list[Callable]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:  # repeated, or a part of it
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise _Unknown('its config has no pipeline for test data')
    scope = cfg.get('default_scope') or 'mmengine'
    import_quietly(scope)
    with DefaultScope.overwrite_default_scope(scope):
        return [TRANSFORMS.build(step) for step in dataset['pipeline']]


def _step(transform: Any) -> dict | None:
    """A transform as a session knows it, None for one without an effect; raises _Unknown."""
    name = type(transform).__name__
    if type(transform).__module__.partition('.')[0] in LIBRARIES:
        if name in PASSED:
            return None
        if name in DESCRIBED and (said := DESCRIBED[name](transform)) is not None:
            return said and {'type': name, **said}
    raise _Unknown(f'its test pipeline has a step that a session does not know, {transform}')


def _load(transform: Any) -> dict | None:
    return {} if transform.color_type == 'color' and not transform.to_float32 else None


def _resize(transform: Any) -> dict | None:
    if transform.scale is None or (transform.backend, transform.interpolation) not in RESIZES:
        return None
    return _attributes(transform, 'scale', 'keep_ratio', 'interpolation', 'backend')


def _resize_edge(transform: Any) -> dict | None:
    if (transform.backend, transform.interpolation) not in RESIZES:
        return None
    return _attributes(transform, 'scale', 'edge', 'interpolation', 'backend')


def _crop(transform: Any) -> dict | None:
    return None if transform.auto_pad else _attributes(transform, 'crop_size')


def _pad(transform: Any) -> dict | None:
    if transform.padding_mode != 'constant':
        return None
    return {
        **_attributes(transform, 'size', 'size_divisor', 'pad_to_square'),
        'pad_val': transform.pad_val.get('img', 0),
    }


def _attributes(transform: Any, *names: str) -> dict:
    return {name: getattr(transform, name) for name in names}


# For each transform what a session needs of it; an empty dict if that is nothing, and None if it is unknown.
DESCRIBED = {
    'LoadImageFromFile': _load,
    'Resize': _resize,
    'ResizeEdge': _resize_edge,
    'CenterCrop': _crop,
    'Pad': _pad,
}


def _batching(model: nn.Module) -> dict:
    """How images become a batch."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    name = type(preprocessor).__name__
    if name not in PREPROCESSORS:
        raise _Unknown(f'its model has a data preprocessor that a session does not know, {name}')
    divisor = preprocessor.pad_size_divisor
    if name == 'SegDataPreProcessor':  # it pads otherwise in tests than in training
        settings = preprocessor.test_cfg or {}
        if settings.get('size'):
            raise _Unknown(f'its data preprocessor pads images to a size, {settings}')
        divisor = settings.get('size_divisor') or 1
    return {'pad_size_divisor': max(divisor, 1), 'pad_value': preprocessor.pad_value}

"""One batch through a classifier or a detector, as it is timed: from preprocessed images to predictions."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample

from ..errors import InputError

DTYPES = ('float32', 'bfloat16', 'float16')


def prepare(model: BaseModel, images: torch.Tensor) -> dict:
    """What the model's preprocessor makes of images, for `predict`.

    Args:
        images: Bytes of shape (N, 3, H, W), in the order of channels that the config expects.
    """
    if isinstance(model, ImageClassifier):
        samples = [DataSample() for _ in images]
    else:
        from mmdet.structures import DetDataSample  # takes seconds, and classifiers need none

        size = tuple(images.shape[2:])
        about = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0), img_id=0)
        samples = [DetDataSample(metainfo=about) for _ in images]
    with torch.no_grad():
        return model.data_preprocessor(dict(inputs=list(images), data_samples=samples), False)


def predict(model: BaseModel, data: dict) -> torch.Tensor | list:
    """What is timed: a classifier's logits; of a detector everything up to boxes in the image."""
    if isinstance(model, ImageClassifier):
        return model(data['inputs'], mode='tensor')
    return model(**data, mode='predict')


def first_sample(output: torch.Tensor | list) -> BaseDataElement:
    """What `predict` gave for the first image, as `predict` of the stock model has it."""
    return (
        DataSample().set_pred_score(output[0].softmax(0)) if isinstance(output, torch.Tensor) else output[0]
    )


def rehearse(model: BaseModel, data: dict, dtype: str) -> None:
    """One `predict` that is not timed; raises ValueError if the model has an operator without this dtype."""
    try:
        predict(model, data)
    except RuntimeError as error:
        if dtype == 'float32':
            raise
        raise InputError(f'{type(model).__name__} does not run in {dtype} here: {error}') from error


def check_dtype(dtype: str) -> None:
    """Raises ValueError for a dtype that is not among DTYPES."""
    if dtype not in DTYPES:
        raise InputError(f'dtype={dtype!r}: give one of {", ".join(DTYPES)}')


@contextmanager
def precision(device: str | torch.device, dtype: str) -> Iterator[None]:
    """Runs a block without gradients, and with autocast if the dtype is not float32.

    Put one such block around everything that is timed. Autocast converts each weight at its first use and
    keeps it until the block ends; in a block for each run the conversion would be timed too.

    Raises:
        ValueError: An unknown dtype.
    """
    check_dtype(dtype)
    half = torch.autocast(torch.device(device).type, getattr(torch, dtype)) if dtype != 'float32' else None
    with torch.no_grad(), half or nullcontext():  # under inference_mode autocast keeps no weights
        yield

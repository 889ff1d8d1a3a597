"""Turns images of any size into the input of a file, as the pipeline of its config does.

Needs numpy. Where OpenCV or Pillow is installed, it resizes with the one that the pipeline names; else numpy
computes the same.
"""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MissingPackageError

try:
    import cv2
except ImportError:
    cv2 = None
try:
    from PIL import Image, ImageOps
except ImportError:
    Image = None


def read_image(image: Any) -> np.ndarray:
    """An image as OpenCV and OpenMMLab hold it.

    Args:
        image: Bytes of shape (H, W, 3), BGR; a path; or an image of Pillow.

    Returns:
        Bytes of shape (H, W, 3), BGR.

    Raises:
        OSError: There is no such file.
        ValueError: It is no image.
        ImportError: It is a file, and neither OpenCV nor Pillow is installed.
    """
    if isinstance(image, (str, PathLike)):
        return _decoded(Path(image))
    if Image is not None and isinstance(image, Image.Image):
        return _converted(image)
    shape, dtype = getattr(image, 'shape', None), getattr(image, 'dtype', None)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        given = f'shape {tuple(shape)} and type {dtype}' if dtype else f'type {type(image).__name__}'
        raise InputError(
            f'an image of {given}: give a path, an image of Pillow, or uint8 of shape (height, width, 3) '
            'with channels in BGR order, or a list of them'
        )
    return np.asarray(image)


def _converted(image: 'Image.Image') -> np.ndarray:
    """An image of Pillow, upright."""
    if image.mode.startswith('I'):  # Pillow would cut what is above 255
        raise InputError(
            'an image of more than 8 bits a channel is read by OpenCV alone: convert it, or '
            'pip install opencv-python-headless'
        )
    return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]


def _decoded(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f'{str(path)!r}: there is no such image file')
    data = path.read_bytes()
    image = None
    if cv2 is not None:
        if data:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    elif Image is not None:
        try:
            with Image.open(path) as opened:
                image = _converted(opened)
        except OSError:  # the file was read above, so it is no image
            pass
    else:
        raise MissingPackageError(f'{path} is read by OpenCV or Pillow: pip install pillow, or give an array')
    if image is None:
        raise InputError(f'{path} is no image that {"OpenCV" if cv2 is not None else "Pillow"} reads')
    return image


def preprocess(
    images: Sequence[np.ndarray], about: dict, least: tuple[int, int] = (0, 0)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch as the network gets it.

    Args:
        images: From `read_image`.
        about: What the file says about itself, with `preprocess`.
        least: Height and width that the batch has at least; images are padded to it.

    Returns:
        Normalised images of shape (N, 3, H, W), float32; height and width of each without what pads a batch,
        int64 of shape (N, 2); and by which factor its width and height were changed, float32 of shape (N, 2).

    Raises:
        ValueError: A step is not known here, because a later version has written the file.
    """
    told, inputs, factors = about['preprocess'], [], []
    for image in images:
        factor = np.ones(2)
        for step in told['steps']:
            if step['type'] not in STEPS:
                raise InputError(
                    f'the file was written by mmadn {about.get("mmadn")} and asks for the step {step}, which '
                    'is unknown here: install that version'
                )
            before = image
            image = STEPS[step['type']](image, **{name: step[name] for name in step if name != 'type'})
            if step['type'] in ('Resize', 'ResizeEdge'):
                factor *= np.divide(image.shape[1::-1], before.shape[1::-1])
        inputs.append(_normalised(image, about))
        factors.append(factor)
    sizes = np.array([image.shape[1:] for image in inputs], np.int64)
    divisor = told['pad_size_divisor']
    height, width = np.maximum(-(-sizes.max(0) // divisor) * divisor, least)
    batch = np.full((len(inputs), 3, height, width), told['pad_value'], np.float32)
    for padded, image in zip(batch, inputs, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes, np.array(factors, np.float32)


def _normalised(image: np.ndarray, about: dict) -> np.ndarray:
    """Channels first."""
    if about.get('to_rgb'):
        image = image[..., ::-1]
    image = image.astype(np.float32)
    if 'mean' in about:
        image = (image - np.array(about['mean'], np.float32)) / np.array(about['std'], np.float32)
    return image.transpose(2, 0, 1)


def _fit(
    image: np.ndarray, scale: tuple[int, int], keep_ratio: bool, interpolation: str, backend: str
) -> np.ndarray:
    height, width = image.shape[:2]
    if keep_ratio:
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        scale = int(width * factor + 0.5), int(height * factor + 0.5)
    return resize(image, *scale, interpolation, backend)


def _fit_edge(image: np.ndarray, scale: int, edge: str, interpolation: str, backend: str) -> np.ndarray:
    height, width = image.shape[:2]
    short = 'width' if width < height else 'height'
    long = 'width' if width > height else 'height'
    if {'short': short, 'long': long}.get(edge, edge) == 'width':
        size = scale, int(scale * height / width)
    else:
        size = int(scale * width / height), scale
    return resize(image, *size, interpolation, backend)


def _crop(image: np.ndarray, crop_size: tuple[int, int]) -> np.ndarray:
    width, height = crop_size
    y = max(0, round((image.shape[0] - height) / 2))
    x = max(0, round((image.shape[1] - width) / 2))
    return image[y : y + height, x : x + width]


def _pad(
    image: np.ndarray,
    size: tuple[int, int] | None,
    size_divisor: int | None,
    pad_to_square: bool,
    pad_val: float | Sequence[float],
) -> np.ndarray:
    height, width = image.shape[:2]
    if pad_to_square:
        height = width = max(height, width)
    if size_divisor:
        height, width = (math.ceil(side / size_divisor) * size_divisor for side in (height, width))
    elif size:
        width, height = max(width, size[0]), max(height, size[1])
    padded = np.empty((height, width, 3), np.uint8)
    padded[:] = pad_val
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


# By the names that OpenMMLab's pipelines call them.
STEPS = {'Resize': _fit, 'ResizeEdge': _fit_edge, 'CenterCrop': _crop, 'Pad': _pad}


def resize(image: np.ndarray, width: int, height: int, interpolation: str, backend: str) -> np.ndarray:
    """Resizes bytes of shape (H, W, 3).

    Args:
        interpolation: 'bilinear', or with Pillow 'bicubic' too.
        backend: 'cv2' or 'pillow', which differ in how they make images smaller.
    """
    width, height = max(width, 1), max(height, 1)
    if backend == 'cv2':
        return cv2.resize(image, (width, height)) if cv2 else _as_opencv(image, width, height)
    if Image is None:
        return _as_pillow(_as_pillow(image, 1, width, interpolation), 0, height, interpolation)
    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(pixels.resize((width, height), Image.Resampling[interpolation.upper()]))


def _as_opencv(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear: two old pixels for a new one, in OpenCV's fixed-point numbers."""
    columns, shares = _neighbours(image.shape[1], width)
    shares = np.where(columns[0] == columns[1], [[2048], [0]], shares)[..., None]
    rows = (
        sum(image.take(c, 1).astype(np.int32) * share for c, share in zip(columns, shares, strict=True)) >> 4
    )
    places, shares = _neighbours(image.shape[0], height)
    parts = [(rows[p] * share >> 16) for p, share in zip(places, shares[..., None, None], strict=True)]
    return (sum(parts) + 2 >> 2).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Between which pixels of a side each new one lies, and how much it has of either, in 1/2048."""
    centre = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(centre)
    shares = np.rint(np.stack([1 - (centre - first), centre - first]) * 2048)
    return np.clip([first, first + 1], 0, old - 1).astype(int), shares.astype(np.int32)


def _as_pillow(image: np.ndarray, axis: int, new: int, interpolation: str) -> np.ndarray:
    """One side resized: a new pixel is a mean of all that it covers, in Pillow's fixed-point numbers."""
    old = image.shape[axis]
    stretch = max(old / new, 1)
    reach = stretch * (1 if interpolation == 'bilinear' else 2)
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    places = np.floor(centre - reach).astype(int) + np.arange(1, math.ceil(2 * reach) + 1)[:, None]
    distance = np.abs(places - centre) / stretch
    weights = np.maximum(1 - distance, 0) if interpolation == 'bilinear' else _cubic(distance)
    weights = np.where((places >= 0) & (places < old), weights, 0)
    weights = np.rint(weights / weights.sum(0) * 2**22).astype(np.int64)
    weights = weights[:, None, :, None] if axis == 1 else weights[:, :, None, None]
    places = np.clip(places, 0, old - 1)
    total = sum(image.take(p, axis) * weight for p, weight in zip(places, weights, strict=True))
    return np.clip(total + 2**21 >> 22, 0, 255).astype(np.uint8)


def _cubic(x: np.ndarray) -> np.ndarray:
    """The kernel of cubic convolution at distances from 0 on, with its parameter at -0.5."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))

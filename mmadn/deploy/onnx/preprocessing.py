"""Turns images of any size into the input of a file, as the pipeline of its config does.

Needs numpy. Where OpenCV or Pillow is installed, it resizes with the one that the pipeline names; else numpy
computes the same to within one grey level.
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
        return np.asarray(image.convert('RGB'))[..., ::-1]
    shape, dtype = getattr(image, 'shape', None), getattr(image, 'dtype', None)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        given = f'shape {tuple(shape)} and type {dtype}' if dtype else f'type {type(image).__name__}'
        raise InputError(
            f'an image of {given}: give a path, or uint8 of shape (height, width, 3) with channels in BGR '
            'order, or a list of them'
        )
    return np.asarray(image)


def _decoded(path: Path) -> np.ndarray:
    data = path.read_bytes()
    image = None
    if cv2 is not None:
        if data:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    elif Image is not None:
        try:
            with Image.open(path) as opened:
                image = np.asarray(ImageOps.exif_transpose(opened).convert('RGB'))[..., ::-1]
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
        interpolation: 'bilinear' or 'bicubic'.
        backend: 'cv2' or 'pillow', which differ in how they make images smaller.
    """
    width, height = max(width, 1), max(height, 1)
    if backend == 'cv2' and cv2 is not None:
        code = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}[interpolation]
        return cv2.resize(image, (width, height), interpolation=code)
    if backend == 'pillow' and Image is not None:
        code = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}[interpolation]
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), code))
    for axis, size in ((1, width), (0, height)):
        image = _resized(image, axis, size, interpolation, backend)
        if backend == 'pillow':  # keeps bytes between the two
            image = np.clip(np.floor(image + 0.5), 0, 255)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _resized(image: np.ndarray, axis: int, size: int, interpolation: str, backend: str) -> np.ndarray:
    """One side of an image resized to `size`, float32: every pixel is a weighted sum of some old ones."""
    old = image.shape[axis]
    scale = old / size
    radius = 1 if interpolation == 'bilinear' else 2
    stretch = max(scale, 1) if backend == 'pillow' else 1  # Pillow averages all that a pixel covers
    centre = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    reach = radius * stretch
    places = np.floor(centre - reach).astype(int) + np.arange(1, math.ceil(2 * reach) + 1)
    distance = np.abs(places - centre) / stretch
    if interpolation == 'bilinear':
        weights = np.maximum(1 - distance, 0)
    else:
        weights = _cubic(distance, -0.5 if backend == 'pillow' else -0.75)
    if backend == 'pillow':  # leaves out what lies beyond the border, where OpenCV repeats it
        weights = np.where((places >= 0) & (places < old), weights, 0)
        weights /= weights.sum(1, keepdims=True)
    places = np.clip(places, 0, old - 1)
    along = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    weights = weights.astype(np.float32)
    return sum(image.take(p, axis) * w.reshape(along) for p, w in zip(places.T, weights.T, strict=True))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel at distances from 0 on."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))

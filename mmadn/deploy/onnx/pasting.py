"""Puts the masks of detections, or the logits of pixels, into the image. Needs numpy alone."""

import numpy as np


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5
) -> np.ndarray:
    """The pixels of an image that belong to each detection, as mmdet pastes them on a CPU.

    Args:
        masks: Probabilities, float32 of shape (n, h, w), each stretched over its box.
        boxes: Corners x1 y1 x2 y2 in pixels of the image, of shape (n, 4).
        height, width: Of the image.
        threshold: The least probability of what belongs to a detection.

    Returns:
        Bools of shape (n, height, width).
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for mask, (x1, y1, x2, y2), pixels in zip(masks, boxes, pasted, strict=True):
        rows, down = _stretched(mask.shape[0], y1, y2, height)
        columns, across = _stretched(mask.shape[1], x1, x2, width)
        pixels[rows, columns] = down @ mask @ across.T >= threshold
    return pasted


def stretch(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps of shape (C, h, w), bilinearly resized to (C, height, width) as torch does it."""
    _, down = _stretched(maps.shape[1], 0, height, height)
    _, across = _stretched(maps.shape[2], 0, width, width)
    # Beyond the outermost centres a map goes on as it ends.
    return (down / down.sum(1, keepdims=True)) @ maps @ (across / across.sum(1, keepdims=True)).T


def _stretched(size: int, begin: float, end: float, limit: int) -> tuple[slice, np.ndarray]:
    """The pixels that a side of a box touches, and how much of each cell of the mask every one of them is."""
    first = max(int(np.floor(begin)) - 1, 0)
    pixels = np.arange(first, max(min(int(np.ceil(end)) + 1, limit), first), dtype=np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        place = (pixels + 0.5 - begin) / (end - begin)
    place = np.where(np.isinf(place), 0.5, place) * size - 0.5  # a box without an extent shows its middle
    shares = np.maximum(1 - np.abs(place[:, None] - np.arange(size)), 0)
    return slice(first, first + len(pixels)), np.nan_to_num(shares).astype(np.float32)

"""Compares a whole detector in an ONNX file with mmdet's own `predict`, before anybody gets it.

Detections are compared, not their absence: where mmdet finds few in the random images of a comparison, both
get a lower threshold of the scores until it does. They are compared as sets, as rounding orders near scores.
Equal scores, as saturated ones are, have no order at all, and which box comes first can change what it
suppresses, and so on through a whole cluster of boxes; and a DETR takes the best of thousands of places as
its queries, where rounding decides which is the last and which comes first. A file that is wrong differs in
any images; so other images are tried before one is refused.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmdet.models.detectors import DetectionTransformer
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import nn

from ...errors import FailedError
from .comparing import Progress, at_depth, check_finite, quiet, runner
from .detectors import last_head, predict
from .pasting import paste_masks
from .tracing import example_images, outputs_of

CORNERS, SCORES = 0.01, 1e-4  # by which the corners, in pixels, and the score of a detection may differ
MISSING = 0.01  # of the detections may have no counterpart, as rounding can decide what suppresses what
MASKS = 1e-4  # of the pixels of masks may differ
TIE = 1e-6  # of scores: the last ones of a full list may be others with the same score
TRIES = 16  # of different images
WANTED = 10  # detections in a comparison
NOTHING = 1.0  # a threshold that no score passes


def compare_detections(
    model: nn.Module,
    path: Path,
    shape: Sequence[int],
    skips: list[str | None],
    dynamic: bool,
    adaptive: bool,
    features: Callable[..., dict[str, np.ndarray]] | None = None,
    progress: Progress = quiet,
) -> list[dict]:
    """Runs a file beside mmdet at each depth, and at the first and last in more ways.

    Args:
        features: What gives mmdet the feature maps, a `runner` of those in eight bits; by default the model.

    Returns:
        For each depth `skip`, how many `detections` were compared, how many are `missing` in the file or in
        mmdet, the largest difference of `corners`, in pixels, and of a `score`, and of a detector with masks
        the share of the `pixels` that differ.

    Raises:
        RuntimeError: They differ by more than rounding, or there was nothing to compare.
    """
    run = runner(path, adaptive)
    rows = []
    for skip in skips:
        where = f' at depth {skip}' if skip else ''
        progress(f'comparing with mmdet{where}')
        sizes = _sizes(model, shape, dynamic)[: 2 if skip in (skips[0], skips[-1]) else 1]
        compared = _Compared(last_head(model).test_cfg.get('mask_thr_binary'))
        for size in sizes:
            for seed in range(TRIES):
                tried = copy.copy(compared)
                with at_depth(model, skip):
                    maps = features and partial(features, skip)
                    for inputs, expected in _examples(model, size, len(sizes) > 1, where, seed, maps):
                        found = run(skip, **inputs)
                        for i, each in enumerate(inputs['sizes'].tolist()):
                            tried.add(expected[i], {name: values[i] for name, values in found.items()}, each)
                if tried.agree():
                    break
            compared = tried
            compared.check(where)
        rows.append({'skip': skip, **compared.row()})
    return rows


def _sizes(model: nn.Module, shape: Sequence[int], dynamic: bool) -> list[Sequence[int]]:
    """Sizes of inputs: first one image, where sizes are free of another size, and then two."""
    channels, height, width = shape
    another = height, width
    if dynamic:  # a DETR needs more places than it has queries
        larger = isinstance(model, DetectionTransformer)
        another = (height + 32, width + 64) if larger else (-(-height // 2), -(-width // 2))
    return [(1, channels, *another), (2, *shape)]


def _examples(
    model: nn.Module,
    size: Sequence[int],
    thorough: bool,
    where: str,
    seed: int,
    maps: Callable[..., dict[str, np.ndarray]] | None,
) -> Iterator[tuple[dict[str, np.ndarray], list[InstanceData]]]:
    """Inputs of a file, of shape `size`, and what mmdet detects in them. The second image is padded.

    If `thorough`, there are also the threshold of the settings, which is not given, and one that nothing
    passes.
    """
    usual = last_head(model).test_cfg.get('score_thr')
    images = example_images(model, *size, seed=seed)
    features = list(outputs_of(model, images).values())
    for feature in features:
        check_finite(feature.numpy(force=True), where)
    sizes = [(side * size[2] // 4, side * size[3] // 4) for side in (4, 3)[: size[0]]]
    inputs = {'images': images.numpy(force=True), 'sizes': np.array(sizes)}
    if maps:
        features = [torch.from_numpy(m).to(images) for m in maps(images=inputs['images']).values()]

    def detect(score_thr: float | None) -> list[InstanceData]:
        return predict(model, features, sizes, size[2:], score_thr)

    threshold, found = _lowered(usual, detect)
    yield inputs if threshold == usual else _with(inputs, threshold), found
    if thorough and len(images) == 1 and usual is not None:
        yield inputs, detect(usual)
        yield _with(inputs, NOTHING), detect(NOTHING)


def _with(inputs: dict[str, np.ndarray], score_thr: float) -> dict[str, np.ndarray]:
    return {**inputs, 'score_thr': np.array(score_thr, np.float32)}


def _lowered(
    score_thr: float | None, detect: Callable[[float | None], list[InstanceData]]
) -> tuple[float | None, list[InstanceData]]:
    """A threshold at which there is enough to compare, and what is detected with it."""
    found = detect(score_thr)
    if score_thr is None or sum(map(len, found)) >= WANTED or score_thr < 1e-9:
        return score_thr, found
    return _lowered(score_thr / 4, detect)


@dataclass
class _Compared:
    """Counts what two sets of detections have in common.

    Args:
        mask_thr: The least probability of a pixel of a mask.
    """

    mask_thr: float | None
    detections: int = 0
    missing: int = 0
    corners: float = 0.0
    score: float = 0.0
    pixels: int = 0
    wrong: int = 0

    def add(self, expected: InstanceData, found: dict[str, np.ndarray], size: Sequence[int]) -> None:
        """Compares the detections of an image."""
        full = (found['labels'] >= 0).all()
        found = {name: values[found['labels'] >= 0] for name, values in found.items()}
        boxes, scores, labels = (expected[n].numpy(force=True) for n in ('bboxes', 'scores', 'labels'))
        corners = np.abs(boxes[:, None] - found['dets'][:, :4]).max(2, initial=0)
        score = np.abs(scores[:, None] - found['dets'][:, 4])
        agree = (corners <= CORNERS) & (score <= SCORES) & (labels[:, None] == found['labels'])
        rows, columns = linear_sum_assignment(agree, maximize=True)
        pairs = rows, columns = rows[agree[rows, columns]], columns[agree[rows, columns]]
        alone = np.concatenate([np.delete(scores, rows), np.delete(found['dets'][:, 4], columns)])
        self.detections += len(rows)
        self.missing += int((alone > scores.min() + TIE).sum() if full and len(scores) else len(alone))
        self.corners = max(self.corners, float(corners[pairs].max(initial=0)))
        self.score = max(self.score, float(score[pairs].max(initial=0)))
        if 'masks' in found:
            masks = paste_masks(found['masks'][columns], found['dets'][columns, :4], *size, self.mask_thr)
            self.pixels += masks.size
            self.wrong += int((masks != expected.masks.numpy(force=True)[rows]).sum())

    def agree(self) -> bool:
        return 0 < self.detections and self.missing <= MISSING * self.detections

    def check(self, where: str) -> None:
        """Raises RuntimeError where too much differs."""
        if not self.detections + self.missing:
            raise FailedError(f'mmdet detects nothing{where} even at scores near 0, so no file was compared')
        if not self.agree():
            raise FailedError(
                f'the file would detect something else than mmdet{where}: {self.detections} detections agree '
                f'and {self.missing} are in one of both alone; it was not written'
            )
        if self.wrong > MASKS * self.pixels:
            raise FailedError(
                f'masks of the file would differ from those of mmdet{where} in {self.wrong} of {self.pixels} '
                'pixels; it was not written'
            )

    def row(self) -> dict:
        row = {name: getattr(self, name) for name in ('detections', 'missing', 'corners', 'score')}
        return row | ({'pixels': self.wrong / self.pixels} if self.pixels else {})

"""Compares an ONNX file with torch, before anybody gets it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from ...depth import depth_of
from ...errors import FailedError, InputError
from .session import open_session
from .tracing import example_images, outputs_of

Progress = Callable[[str], object]  # takes a line on what begins
TOLERANCE = 1e-4  # of the difference to torch, in standard deviations of the output
ROUNDING = 1e-6  # of float32: an output that varies by less than this part of itself is constant


def quiet(line: str) -> None:
    """The `Progress` of who wants none."""


def at_depth(model: nn.Module, skip: str | None) -> AbstractContextManager:
    if skip is None:
        return nullcontext()
    depth = depth_of(model)  # of whose parts the backbone alone may be in a file
    return (depth if len(skip) == depth.num_skippable_stages else model.backbone).skipping(skip)


def runner(path: Path, adaptive: bool) -> Callable:
    """A function of a depth and of named inputs, which gives the outputs of a file by their names."""
    try:
        session = open_session(path)
    except InputError as error:
        reason = str(error.__cause__).strip().rpartition('. ')[2]
        raise FailedError(
            f'onnxruntime {onnxruntime.__version__} cannot load the file, so it was not written ({reason}); '
            'an older opset may help'
        ) from error
    names = [value.name for value in session.get_outputs()]

    def run(skip: str | None, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        if adaptive:
            inputs['skip'] = np.array([letter == 'T' for letter in skip])
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # onnxruntime has a class for each error, all of them plain Exceptions
            shape, reason = inputs['images'].shape, str(error).splitlines()[0][:200]
            raise FailedError(
                f'the file would fail on images of shape {shape}; it was not written ({reason})'
            ) from error

    return run


def compare_outputs(
    model: nn.Module,
    path: Path,
    shape: Sequence[int],
    skips: list[str | None],
    dynamic: bool,
    adaptive: bool,
    progress: Progress = quiet,
) -> list[dict]:
    """Runs a file of logits or feature maps beside torch at each depth.

    Raises:
        RuntimeError: They differ by more than rounding.
    """
    run = runner(path, adaptive)
    sizes = [(1, *shape)]
    larger = (3, shape[0], shape[1] + 32, shape[2] + 64)
    rows = []
    for skip in skips:
        where = f' at depth {skip}' if skip else ''
        progress(f'comparing with torch{where}')
        differences = []
        for size in [*sizes, larger] if dynamic and skip in (skips[0], skips[-1]) else sizes:
            images = example_images(model, *size)
            with at_depth(model, skip):
                expected = outputs_of(model, images)
            found = run(skip, images=images.numpy(force=True))
            for name, values in expected.items():
                differences.append(_difference(values.numpy(force=True), found[name], where))
        difference, relative = map(max, zip(*differences, strict=True))
        if not relative <= TOLERANCE:
            raise FailedError(
                f'the file would differ from torch{where} by {difference:.2g}, which is {relative:.2g} of '
                f'the spread of an output, where {TOLERANCE:g} is accepted; it was not written'
            )
        rows.append({'skip': skip, 'difference': difference, 'relative': relative})
    return rows


def compare_quantised(
    model: nn.Module,
    path: Path,
    batches: Sequence[np.ndarray],
    skips: list[str | None],
    adaptive: bool,
    progress: Progress = quiet,
) -> list[dict]:
    """Runs a file in eight bits beside torch in float, on the images that gave its ranges.

    Returns:
        For each depth `skip`; `lost`, the root of the mean squared difference over the standard deviation of
        an output, the largest of several; and of a classifier or segmentor `same`, the percentage of images
        or pixels with the same most probable class.

    Raises:
        RuntimeError: What a file computes is not finite, or nothing is left of an output.
    """
    run, rows = runner(path, adaptive), []
    for skip in skips:
        where = f' at depth {skip}' if skip else ''
        progress(f'comparing eight bits with torch{where}')
        totals, same = {}, []
        for images in batches:  # of which none need be as large as another
            with at_depth(model, skip):
                expected = outputs_of(model, torch.from_numpy(images).to(next(model.parameters()).device))
            for name, found in run(skip, images=images).items():
                right = expected[name].numpy(force=True)
                _difference(right, found, where)
                wide = right.astype(np.float64)
                sums = np.array([wide.size, wide.sum(), (wide**2).sum(), ((wide - found) ** 2).sum()])
                totals[name] = totals.get(name, 0) + sums
                if name in ('logits', 'seg_logits'):
                    agree = right.argmax(1) == found.argmax(1)
                    same.extend(agree.reshape(len(agree), -1).mean(1))
        row = {'skip': skip, 'lost': 0.0}
        for name, (size, total, squares, wrong) in totals.items():
            spread = max(squares / size - (total / size) ** 2, 1e-60) ** 0.5
            lost = float((wrong / size) ** 0.5 / spread)
            if lost >= 1:
                raise FailedError(f'eight bits leave nothing of {name}{where}; the file was not written')
            row['lost'] = max(row['lost'], lost)
        rows.append(row | ({'same': 100 * float(np.mean(same))} if same else {}))
    return rows


def _difference(expected: np.ndarray, found: np.ndarray, where: str = '') -> tuple[float, float]:
    """The largest difference of an output to torch's, also in standard deviations unless that is constant.

    Raises:
        RuntimeError: One of them is not finite, or their shapes differ, which a difference may not show.
    """
    check_finite(expected, where)
    if not np.isfinite(found).all():
        raise FailedError(
            f'the file would compute NaN or infinity{where}, where torch does not; it was not written'
        )
    if found.shape != expected.shape:
        raise FailedError(
            f'the file would give an output of shape {found.shape}{where}, where torch gives '
            f'{expected.shape}; it was not written'
        )
    expected = expected.astype(np.float64)  # in which no variance overflows
    difference = np.abs(expected - found).max()
    spread = expected.std()
    constant = spread <= ROUNDING * np.abs(expected).max()
    return float(difference), float(difference if constant else difference / spread)


def check_finite(expected: np.ndarray, where: str) -> None:
    if not np.isfinite(expected).all():
        raise FailedError(
            f'torch itself computes NaN or infinity{where}, so the weights are at fault; no file was written'
        )

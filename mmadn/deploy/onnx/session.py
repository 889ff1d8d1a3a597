"""Runs exported files. Needs numpy and onnxruntime, and neither torch nor what an export needs."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...depth_names import DepthNames, Skip
from ...errors import InputError, MissingPackageError
from ...evaluation.table import join, read_report
from ...evaluation.timing import interleaved
from .pasting import paste_masks, stretch
from .preprocessing import preprocess, read_image

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f'ONNX files are run by a package that mmadn does without ({error}): pip install onnxruntime'
    ) from error


class AdaptiveSession(DepthNames):
    """Runs an adaptive ONNX file in onnxruntime, at a depth that is chosen with each call.

    Called with images of any size, it gives what is in them; `run` takes and gives the network's own tensors.
    It keeps no state, so that threads may share one.

    Args:
        path: A file from `export_onnx(..., adaptive=True)`.
        providers: Of onnxruntime; by default the CPU's.
        threads: Of the operators; by default onnxruntime's choice.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no ONNX file, or not an adaptive one.

    Example:
        >>> session = AdaptiveSession('mask_rcnn.onnx')
        >>> found = session('street.jpg', skip='TTFF')
        >>> found['bboxes'].shape, found['names'][:2]
        ((7, 4), ['person', 'car'])
    """

    def __init__(
        self, path: str | PathLike, providers: Sequence[str] | None = None, threads: int | None = None
    ):
        self.session = open_session(path, providers, threads)
        self.about = describe(self.session)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        if 'images' not in self.inputs:
            raise InputError(f'{path} has the inputs {", ".join(self.inputs)}: it is no file of export_onnx')
        if 'skip' not in self.inputs:
            fixed = f': it is {self.about["skip"]} alone' if 'skip' in self.about else ''
            raise InputError(
                f'{path} has no input for the depth{fixed}; export an adaptive file (--adaptive), or give '
                f'normalised {" and ".join(self.inputs)} to an onnxruntime.InferenceSession of this one'
            )

    @property
    def num_skippable_stages(self) -> int:
        return self.inputs['skip'].shape[0]

    @property
    def part_lengths(self) -> dict[str, int]:
        return self.about.get('parts', {})

    def __call__(
        self, images: Any, skip: Skip = 'super', score_thr: float | None = None
    ) -> dict | list[dict]:
        """Finds what is in images, at one depth.

        Args:
            images: Bytes of shape (H, W, 3), BGR as OpenCV reads them, or a path, or an image of Pillow; or a
                list of these, which becomes one batch, padded to the largest.
            skip: The depth, see `parse_skip`.
            score_thr: Of a detector: what scores less is left out. By default that of its settings.

        Returns:
            Of an image, or a list with that of each: `labels` and `scores`, best first; and `names`, the
            classes of the labels, None where the file does not know them. A classifier gives all its classes.
            A detector gives what it found, with `bboxes`, corners x1 y1 x2 y2 in pixels of the image, float32
            of shape (n, 4), and one with masks `masks`, bools of shape (n, H, W). A segmentor gives the
            `labels` of all pixels, of shape (H, W), and `names` are all its classes.

        Raises:
            OSError: There is no such file.
            ValueError: It is no image, or `skip` does not fit, or the file does not say how images are
                preprocessed or what its outputs mean.
        """
        if not isinstance(images, (list, tuple)):
            return self([images], skip, score_thr)[0]
        self.parse_skip(skip)
        kinds = {
            'logits': self._classes,
            'detections': self._detections,
            'logits of pixels': self._pixels,
        }
        results = kinds.get(self.about.get('output'))
        if results is None:
            outputs = self.about.get('output', 'not described in it')
            raise InputError(
                f'the outputs of this file are {outputs}: run() gives them, for normalised images'
            )
        if 'preprocess' not in self.about:
            why = self.about.get('no_preprocess', f'it was written by mmadn {self.about.get("mmadn")}')
            raise InputError(
                f'this file does not say how images become its input ({why}): give normalised ones to run()'
            )
        pictures = [read_image(image) for image in images]
        return list(results(pictures, skip, score_thr)) if pictures else []

    def run(
        self,
        images: ArrayLike,
        skip: Skip = 'super',
        sizes: ArrayLike | None = None,
        score_thr: float | None = None,
    ) -> Any:
        """Computes the outputs at one depth.

        Args:
            images: Normalised, floating, of shape (N, 3, H, W); an array, or a tensor on the CPU.
            skip: The depth, see `parse_skip`.
            sizes: Of a detector: height and width of each image without padding, of shape (N, 2). By default
                nothing is padded.
            score_thr: See `__call__`.

        Returns:
            The logits, float32; or a list: the feature maps of a detector, or what it found: `dets` of shape
            (N, D, 5), corners and scores; `labels` of shape (N, D), -1 where nothing is; and maybe `masks`,
            probabilities within the boxes, of shape (N, D, h, w).

        Raises:
            ValueError: `images`, `sizes`, `skip` or `score_thr` does not fit the network.
        """
        feeds = {'images': self._checked(images)}
        feeds['skip'] = np.array([letter == 'T' for letter in self.parse_skip(skip)])
        if 'sizes' in self.inputs:
            feeds['sizes'] = self._checked_sizes(sizes, feeds['images'].shape)
        if score_thr is not None:
            feeds['score_thr'] = self._checked_threshold(score_thr)
        outputs = self.session.run(None, feeds)
        return outputs[0] if len(outputs) == 1 else outputs

    def profile(
        self, images: Any, seconds: float = 30, accuracies: str | PathLike | None = None
    ) -> list[dict]:
        """Measures all depths of this session on this machine, from the image to what is in it.

        Args:
            images: See `__call__`.
            seconds: How long, at most.
            accuracies: A `subnets.json` of this network, which says how good the depths are.

        Returns:
            A row for each depth, as `DepthController` and `select` take them, also from a JSON file. Without
            `accuracies` a depth counts as the better the more `stages` it runs whole.

        Raises:
            ValueError: There are no images or no seconds, and what `__call__` raises.
        """
        if isinstance(images, (list, tuple)) and not images:
            raise InputError('images=[]: give one or more, as they will come')
        if not isinstance(seconds, Real) or not seconds > 0:
            raise InputError(f'seconds={seconds!r}: give a number above 0')
        steps = {skip: (lambda: None, partial(self, images, skip)) for skip in self.subnets()}
        times, _ = interleaved(steps, 'cpu', max_seconds=seconds, progress=lambda line: None)
        rows = [
            {
                'skip': skip,
                'latency_p50_ms': float(np.percentile(ms, 50)),
                'latency_p95_ms': float(np.percentile(ms, 95)),
            }
            for skip, ms in times.items()
        ]
        if accuracies:
            return join(rows, read_report(accuracies))
        return [{**row, 'stages': row['skip'].count('F')} for row in rows]

    def _classes(self, pictures: list[np.ndarray], skip: Skip, score_thr: float | None) -> Iterator[dict]:
        if self.about.get('probabilities') != 'softmax':
            raise InputError('this file does not say how logits become probabilities: run() gives the logits')
        batch, _, _ = preprocess(pictures, self.about)
        for logits in self.run(batch, skip, score_thr=score_thr):
            powers = np.exp(logits - logits.max())
            scores = powers / powers.sum()
            labels = np.argsort(-scores, kind='stable')
            yield {'labels': labels, 'scores': scores[labels], 'names': self._names(labels)}

    def _pixels(self, pictures: list[np.ndarray], skip: Skip, score_thr: float | None) -> Iterator[dict]:
        if self.about.get('pixels') != 'argmax':
            raise InputError('this file does not say how logits become labels: run() gives the logits')
        batch, sizes, _ = self._preprocessed(pictures)
        found = self.run(batch, skip, score_thr=score_thr)
        for picture, logits, (height, width) in zip(pictures, found, sizes, strict=True):
            labels = stretch(logits[:, :height, :width], *picture.shape[:2]).argmax(0)
            yield {'labels': labels, 'names': self.about.get('classes')}

    def _detections(self, pictures: list[np.ndarray], skip: Skip, score_thr: float | None) -> Iterator[dict]:
        batch, sizes, factors = self._preprocessed(pictures)
        takes = score_thr is None or self._takes_threshold()
        least = -np.inf if takes else self._checked_number(score_thr)  # as of a DETR, which has none itself
        outputs = self.run(batch, skip, sizes, score_thr if takes else None)
        names = [output.name for output in self.session.get_outputs()]
        if 'masks' in names and 'mask_threshold' not in self.about:
            raise InputError('this file does not say from which probability a mask begins: run() gives them')
        for picture, factor, *values in zip(pictures, factors, *outputs, strict=True):
            found = dict(zip(names, values, strict=True))
            is_one = (found['labels'] >= 0) & (found['dets'][:, 4] > least)
            labels = found['labels'][is_one]
            bboxes = found['dets'][is_one, :4] / np.tile(factor, 2)
            result = {'bboxes': bboxes, 'labels': labels, 'scores': found['dets'][is_one, 4]}
            result['names'] = self._names(labels)
            if 'masks' in found:
                result['masks'] = paste_masks(
                    found['masks'][is_one], bboxes, *picture.shape[:2], self.about['mask_threshold']
                )
            yield result

    def _preprocessed(self, pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `preprocess` gives, padded to the size of the file if it takes one alone."""
        fixed = [size if isinstance(size, int) else 0 for size in self.inputs['images'].shape[2:]]
        batch, *others = preprocess(pictures, self.about, fixed)
        if any(size and size != side for size, side in zip(fixed, batch.shape[2:], strict=True)):
            raise InputError(
                f'this file takes images of {fixed[0]}x{fixed[1]} alone, and the preprocessing of its config '
                f'gives {batch.shape[2]}x{batch.shape[3]}: resize them, or export it with --shape'
            )
        return batch, *others

    def _names(self, labels: np.ndarray) -> list[str] | None:
        classes = self.about.get('classes')
        return classes and [classes[label] for label in labels]

    def _checked(self, images: ArrayLike) -> np.ndarray:
        images = np.asarray(images)
        shape = self.inputs['images'].shape  # numbers, and names of the free sizes
        fits = images.ndim == len(shape) and all(
            given == size for given, size in zip(images.shape, shape, strict=True) if isinstance(size, int)
        )
        if not fits or not np.issubdtype(images.dtype, np.floating):
            raise InputError(
                f'images of shape {images.shape} and type {images.dtype}: give normalised ones of shape '
                f'({", ".join(map(str, shape))}) and type float32'
            )
        return images.astype(np.float32, copy=False)

    def _checked_sizes(self, sizes: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
        n, _, *whole = shape
        checked = np.array([whole] * n if sizes is None else sizes)
        fits = checked.shape == (n, 2) and np.issubdtype(checked.dtype, np.integer)
        if not fits or (checked < 1).any() or (checked > whole).any():
            raise InputError(
                f'sizes={np.asarray(sizes).tolist()}: give whole numbers of shape ({n}, 2), height and width '
                f'of each image, from 1 to {whole}'
            )
        return checked.astype(np.int64)

    def _takes_threshold(self) -> bool:
        return 'score_thr' in [value.name for value in self.session.get_overridable_initializers()]

    def _checked_threshold(self, score_thr: float) -> np.ndarray:
        if not self._takes_threshold():
            raise InputError(f'score_thr={score_thr!r}: this file has no such input, leave it out')
        return self._checked_number(score_thr)

    def _checked_number(self, score_thr: float) -> np.ndarray:
        if not isinstance(score_thr, Real) or not 0 <= score_thr <= 1:
            raise InputError(f'score_thr={score_thr!r}: give a number from 0 to 1')
        return np.array(score_thr, np.float32)


def open_session(
    path: str | PathLike, providers: Sequence[str] | None = None, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session of onnxruntime whose threads sleep while it does not run.

    Args and errors are those of `AdaptiveSession`, but a file of one depth will do.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{str(path)!r}: there is no such file; give one that export_onnx wrote')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no remarks on initialisers that an If does not read
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=list(providers or ['CPUExecutionProvider'])
        )
    except Exception as error:  # onnxruntime has a class for each error, all of them plain Exceptions
        reason = ' '.join(str(error).split())
        raise InputError(
            f'{path} is no ONNX file that onnxruntime can load ({reason}); copy or export it again'
        ) from error


def describe(session: onnxruntime.InferenceSession) -> dict:
    """What a file says about itself.

    Returns:
        `mmadn`, the version that wrote it; `skip`, a fixed depth or 'adaptive'; `flags`, how many there are,
        and of several `parts`, how many each has; `output`, what the outputs are; and where they are known
        `mean`, `std` and `to_rgb`, `preprocess` with the other steps from an image to the input (or
        `no_preprocess`, why they are not), `classes`, `probabilities`, which function gives them,
        `mask_threshold`, and `pixels`, how logits give labels.

    Raises:
        ValueError: What it says is not as mmadn writes it.
    """
    about = {}
    for name, text in session.get_modelmeta().custom_metadata_map.items():
        if name.startswith('mmadn.'):
            try:
                about[name.removeprefix('mmadn.')] = json.loads(text)
            except json.JSONDecodeError:
                raise InputError(
                    f'the file says {name}={text[:50]!r}, which is not JSON: export it anew'
                ) from None
    return about

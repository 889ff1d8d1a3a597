"""Runs exported files. Needs numpy and onnxruntime, and neither torch nor what an export needs."""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ...depth_names import DepthNames, Skip
from ...errors import InputError, MissingPackageError

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f'ONNX files are run by a package that mmadn does without ({error}): pip install onnxruntime'
    ) from error


class AdaptiveSession(DepthNames):
    """Runs an adaptive ONNX file in onnxruntime.

    Args:
        path: A file from `export_onnx(..., adaptive=True)`.
        providers: Of onnxruntime; by default the CPU's.
        threads: Of the operators; by default onnxruntime's choice.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no ONNX file, or not an adaptive one.

    Example:
        >>> session = AdaptiveSession('resnet50.onnx')
        >>> session.run(images, skip='TTFF').shape
        (1, 1000)
    """

    def __init__(
        self, path: str | PathLike, providers: Sequence[str] | None = None, threads: int | None = None
    ):
        self.session = open_session(path, providers, threads)
        self.about = describe(self.session)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        if 'skip' not in self.inputs:
            fixed = f' at the fixed depth {self.about["skip"]}' if 'skip' in self.about else ''
            raise InputError(
                f'{path} has no input for the depth{fixed}; export with adaptive=True, '
                'or run this file by onnxruntime.InferenceSession'
            )

    @property
    def num_skippable_stages(self) -> int:
        return self.inputs['skip'].shape[0]

    def run(self, images: ArrayLike, skip: Skip = 'super') -> np.ndarray | list[np.ndarray]:
        """Computes the outputs at one depth.

        Args:
            images: Normalised, floating, of shape (N, 3, H, W); an array, or a tensor on the CPU.
            skip: The depth, see `parse_skip`.

        Returns:
            The logits, or the feature maps of a detector, float32.

        Raises:
            ValueError: `images` or `skip` does not fit the network.
        """
        flags = np.array([letter == 'T' for letter in self.parse_skip(skip)])
        outputs = self.session.run(None, {'images': self._checked(images), 'skip': flags})
        return outputs[0] if len(outputs) == 1 else outputs

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


def open_session(
    path: str | PathLike, providers: Sequence[str] | None = None, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session of onnxruntime whose threads sleep while it does not run.

    Args and errors are those of `AdaptiveSession`, but a file of one depth will do.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: there is no such file')
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
        raise InputError(f'{path} is no ONNX file that onnxruntime can load: {error}') from error


def describe(session: onnxruntime.InferenceSession) -> dict:
    """What a file says about itself.

    Returns:
        `mmadn`, the version that wrote it; `skip`, a fixed depth or 'adaptive'; `flags`, how many there are;
        `output`, what the outputs are; and where the model knows them `mean`, `std` and `to_rgb` of
        the preprocessing, and `classes`.
    """
    stored = session.get_modelmeta().custom_metadata_map
    return {
        name.removeprefix('mmadn.'): json.loads(text)
        for name, text in stored.items()
        if name.startswith('mmadn.')
    }

"""The images of a stream: a video, a camera, a folder, or generated ones."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np

from ..errors import InputError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def read_images(
    source: str | int | Path | None = None, shape: Sequence[int] = (3, 224, 224)
) -> Iterator[np.ndarray]:
    """Images without end: a video or a folder starts again after its last.

    Args:
        source: A video file, a folder of images or the number of a camera; by default images are generated.
        shape: Channels, height and width that the images are resized to. The channels are 3.

    Yields:
        Bytes of this shape, with channels in mmcv's order, BGR.

    Raises:
        OSError: There is no such source. This is raised at once, and not with the first image.
        ValueError: The source has no images.
    """
    if source is None:
        frames = _generated(shape)
    elif str(source).isdecimal():
        frames = _camera(int(source))
    elif Path(source).is_dir():
        paths = sorted(path for path in Path(source).rglob('*') if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise InputError(f'{source} has no images ({", ".join(SUFFIXES)}) in it')
        frames = map(_image, itertools.cycle(paths))
    elif Path(source).is_file():
        video = mmcv.VideoReader(str(source))
        if video.frame_cnt < 1 or video.read() is None:
            raise InputError(f'{source} is no video that OpenCV reads')
        frames = itertools.chain.from_iterable(itertools.repeat(video))  # each pass starts at the first frame
    else:
        raise FileNotFoundError(f'no video, folder or camera number: {source}')
    size = shape[2], shape[1]
    return (np.ascontiguousarray(mmcv.imresize(frame, size).transpose(2, 0, 1)) for frame in frames)


def _generated(shape: Sequence[int]) -> Iterator[np.ndarray]:
    """A disc that wanders over noise, so that there is something to see and no image comes twice."""
    generator = np.random.default_rng(0)
    _, height, width = shape
    radius = max(2, min(height, width) // 5)
    for i in itertools.count():
        image = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
        centre = round(width * (0.5 + 0.4 * math.sin(i / 20))), round(height * (0.5 + 0.4 * math.cos(i / 27)))
        yield cv2.circle(image, centre, radius, (40, 160, 230), -1)


def _camera(number: int) -> Iterator[np.ndarray]:
    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        raise OSError(f'no camera {number}, or no right to use it')

    def frames():
        try:
            while True:
                success, frame = camera.read()
                if not success:
                    raise OSError(f'camera {number} gives no more images')
                yield frame
        finally:
            camera.release()

    return frames()


def _image(path: Path) -> np.ndarray:
    image = mmcv.imread(str(path))
    if image is None:
        raise InputError(f'{path} is no image that OpenCV reads')
    return image

"""Images from a video, a camera or a folder, or generated ones; and pictures and videos that are written."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import mmcv
import numpy as np

from ..errors import FailedError, InputError
from ..utils.report import replacing

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def read_images(
    source: str | int | Path | None = None, shape: Sequence[int] = (3, 224, 224)
) -> Iterator[np.ndarray]:
    """The images of `read_frames`, as a stream runs them.

    Args:
        source: See `read_frames`.
        shape: Channels, height and width that the images are resized to. The channels are 3.

    Yields:
        Bytes of this shape, with channels in mmcv's order, BGR.
    """
    return resized(read_frames(source, shape), shape)


def resized(frames: Iterable[np.ndarray], shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Images of shape (H, W, 3) as ones of `shape`, channels first."""
    size = shape[2], shape[1]
    return (np.ascontiguousarray(mmcv.imresize(frame, size).transpose(2, 0, 1)) for frame in frames)


def read_frames(
    source: str | int | Path | None = None, shape: Sequence[int] = (3, 224, 224)
) -> Iterator[np.ndarray]:
    """Images without end: a video or a folder starts again after its last.

    Args:
        source: A video file, a folder of images or the number of a camera; by default images are generated.
        shape: Channels, height and width of generated images.

    Yields:
        Bytes of shape (H, W, 3), BGR.

    Raises:
        OSError: There is no such source. This is raised at once, and not with the first image.
        ValueError: The source has no images.
    """
    if source is None:
        return _generated(shape)
    if str(source).isdecimal():
        return _camera(int(source))
    if Path(source).is_dir():
        return map(read_image, itertools.cycle(find_images(source)))
    return itertools.chain.from_iterable(itertools.repeat(open_video(source)))  # each pass starts anew


def length(source: str | int | Path | None) -> tuple[int, float]:
    """How many images a source has, and at how many a second to show them; 300 of what has no end."""
    if source is None or str(source).isdecimal():
        return 300, 10.0
    if Path(source).is_dir():
        return len(find_images(source)), 10.0
    video = open_video(source)
    return video.frame_cnt, video.fps


def find_images(folder: str | Path) -> list[Path]:
    """The paths of all images in a folder and its subfolders, in order; raises ValueError if it has none."""
    paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f'{folder} has no images ({", ".join(SUFFIXES)}) in it')
    return paths


def read_image(path: str | Path) -> np.ndarray:
    """An image of shape (H, W, 3), BGR; raises OSError if there is none, and ValueError if it is broken."""
    image = mmcv.imread(str(path))
    if image is None:
        raise InputError(f'{path} is no image that OpenCV reads')
    return image


def open_video(path: str | Path) -> mmcv.VideoReader:
    """A video, over which one can loop; raises OSError if there is none, and ValueError if it is no video."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'no video, folder or camera number: {path}')
    video = mmcv.VideoReader(str(path))
    if video.frame_cnt < 1 or video.read() is None:
        raise InputError(f'{path} is no video that OpenCV reads')
    return video


def write_image(path: str | Path, picture: np.ndarray) -> None:
    """Writes a picture of shape (H, W, 3), RGB, whole or not at all."""
    with replacing(path) as temporary:
        mmcv.imwrite(picture[..., ::-1], str(temporary))


@contextmanager
def writing_video(path: str | Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes an MPEG-4 video, whole or not at all.

    Every build of OpenCV can write MPEG-4, and players show it, but browsers do not.

    Yields:
        A function that adds a picture of shape (H, W, 3), RGB. Height and width are even, and the same for
        all.

    Raises:
        RuntimeError: OpenCV cannot write it.
    """
    writer = cv2.VideoWriter()

    def write(picture: np.ndarray) -> None:
        if not writer.isOpened():
            size = picture.shape[1], picture.shape[0]
            if not writer.open(str(temporary), cv2.VideoWriter_fourcc(*'mp4v'), fps, size):
                raise FailedError(f'OpenCV cannot write {path}; give a name that ends with .mp4')
        writer.write(np.ascontiguousarray(picture[..., ::-1]))

    with replacing(path) as temporary:
        try:
            yield write
        finally:
            writer.release()


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

"""A small classification task on which depth matters: the 26 capital letters, warped and in clutter."""

import string
import tempfile
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform
from PIL import Image, ImageDraw, ImageFont

CLASSES = string.ascii_uppercase
SIZE = 48  # pixels, both ways
CANVAS = 64  # where a letter is drawn and warped


def write_letters(root: str | Path, train: int = 700, val: int = 60, test: int = 200, seed: int = 0) -> None:
    """Writes `root/{train,val,test}/<letter>/<number>.png`; once is enough.

    The images are 48x48, grey, one byte a pixel. An image depends on `seed`, its split, its letter and its
    number alone, so that the same arguments give the same images.

    Args:
        root: A folder; if it exists, nothing is done.
        train, val, test: How many images of each letter. Settings may be picked on `val`, never on `test`.
        seed: Another one draws another data set.
    """
    root = Path(root)
    if root.is_dir():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        made = Path(folder) / 'letters'
        for number, (split, count) in enumerate(dict(train=train, val=val, test=test).items()):
            print(f'Drawing {count * len(CLASSES)} {split} images in {root}', flush=True)
            for label, letter in enumerate(CLASSES):
                (made / split / letter).mkdir(parents=True)
                for i in range(count):
                    image = draw(np.random.default_rng([seed, number, label, i]), letter)
                    Image.fromarray(image).save(made / split / letter / f'{i:04d}.png')
        made.rename(root)  # whole or not at all


@TRANSFORMS.register_module()
class LocalContrast(BaseTransform):
    """How much each pixel differs from its surroundings, brighter or darker, as an image of shape (H, W, 3).

    A letter is brighter than its background as often as it is darker, so that no linear function of the
    pixels tells letters apart. Batch norms and ReLUs get over that at once, layer norms do not.
    """

    def transform(self, results: dict) -> dict:
        image = results['img'].astype(np.float32)
        contrast = np.abs(image - cv2.GaussianBlur(image, (0, 0), 4))
        results['img'] = (4 * contrast).clip(0, 255).astype(np.uint8)
        return results


def draw(rng: np.random.Generator, letter: str) -> np.ndarray:
    """One image of shape (48, 48), uint8.

    The letter is drawn in Pillow's own font at some size, turned, sheared, stretched and moved, and warped
    by a smooth random displacement; one or two lines cross the image; all of it is added to or taken from
    a cloudy background, and noise comes on top.
    """
    shape = warp(rng, _drawn(letter, rng.uniform(34, 54)))
    shape = cv2.resize(shape, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    for _ in range(rng.integers(1, 3)):
        ends = rng.integers(0, SIZE, (2, 2)).tolist()
        cv2.line(shape, *ends, color=rng.uniform(0.4, 1), thickness=1, lineType=cv2.LINE_AA)
    background = 0.25 + 0.5 * smooth(rng.uniform(0, 1, (5, 5)), SIZE)
    image = background + rng.choice([-1, 1]) * rng.uniform(0.35, 0.6) * shape
    image += rng.normal(0, 0.06, image.shape)
    return np.round(255 * image.clip(0, 1)).astype(np.uint8)


def _drawn(letter: str, size: float) -> np.ndarray:
    image = Image.new('L', (CANVAS, CANVAS))
    middle = (CANVAS / 2, CANVAS / 2)
    ImageDraw.Draw(image).text(middle, letter, fill=255, font=ImageFont.load_default(size), anchor='mm')
    return np.asarray(image, np.float32) / 255


def warp(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """An image of shape (64, 64) under a random affine map and a smooth displacement."""
    turn, shear = rng.uniform(-0.35, 0.35), rng.uniform(-0.3, 0.3)  # radians, and pixels a pixel
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ [[1, shear], [0, 1]] @ np.diag(rng.uniform(0.75, 1.35, 2))
    target = np.indices((CANVAS, CANVAS))[::-1] - CANVAS / 2 - rng.uniform(-5, 5, (2, 1, 1))
    source = np.einsum('ij,jyx->iyx', matrix, target) + CANVAS / 2
    source += [smooth(rng.normal(0, 2.5, (5, 5)), CANVAS) for _ in range(2)]
    return cv2.remap(image, *source.astype(np.float32), interpolation=cv2.INTER_LINEAR)


def smooth(values: np.ndarray, size: int) -> np.ndarray:
    """A small array, enlarged to shape (size, size) without edges."""
    return cv2.resize(values.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)

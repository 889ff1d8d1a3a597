"""Coloured shapes drawn over crops of photographs, a small task of detection and of segmentation."""

import colorsys
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

CLASSES = ('circle', 'square', 'triangle', 'star')
SIZE = 128  # pixels, both ways
EMPTY = 0.06  # of the images
VISIBLE = 0.25  # of a shape at least, however many others lie over it

# Where a split's backgrounds are cut from every photograph, as parts of its width.
SPLITS = {'train': (0, 0.5), 'val': (0.5, 0.75), 'test': (0.75, 1)}


def write_shapes(root: str | Path, train: int = 800, val: int = 100, test: int = 200, seed: int = 0) -> None:
    """Writes `root/{train,val,test}/<number>.png` and `root/annotations/<split>.json`; once is enough.

    For segmentation `root/labels/<split>/<number>.png` has the class of each pixel, 0 for the background.
    The images are 128x128, RGB. Each has up to six shapes; one image in 16 has none. Masks are exact: a shape
    loses what later ones cover and what lies outside. The class shows in the outline and, less surely, in the
    hue.
    The backgrounds of the splits come from different parts of the photographs that scikit-learn and
    scikit-image carry. An image depends on `seed`, its split and its number alone, so that the same
    arguments give the same bytes.

    Args:
        root: A folder; if it exists, nothing is done.
        train, val, test: How many images. Settings may be picked on `val`, never on `test`.
        seed: Another one draws another data set.
    """
    root = Path(root)
    if root.is_dir():
        return
    photographs = load_photographs()
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        made = Path(folder) / 'shapes'
        (made / 'annotations').mkdir(parents=True)
        for number, (split, count) in enumerate(dict(train=train, val=val, test=test).items()):
            print(f'Drawing {count} {split} images in {root}', flush=True)
            (made / split).mkdir()
            (made / 'labels' / split).mkdir(parents=True)
            parts = [_part(photograph, *SPLITS[split]) for photograph in photographs]
            images, annotations = [], []
            for i in range(count):
                pixels, objects = draw(np.random.default_rng([seed, number, i]), parts)
                name = f'{i:04d}.png'
                Image.fromarray(pixels).save(made / split / name)
                Image.fromarray(label_map(objects)).save(made / 'labels' / split / name)
                images.append(dict(id=i + 1, file_name=name, height=SIZE, width=SIZE))
                for label, mask in objects:
                    annotations.append(_annotation(len(annotations) + 1, i + 1, label, mask))
            coco = dict(
                info=dict(description='Coloured shapes over photographs', seed=seed),
                images=images,
                annotations=annotations,
                categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
            )
            (made / 'annotations' / f'{split}.json').write_text(json.dumps(coco))
        made.rename(root)  # whole or not at all


def load_photographs() -> list[np.ndarray]:
    """The photographs that come with scikit-learn and scikit-image, each of shape (H, W, 3), uint8."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    return [
        load_sample_image('china.jpg'),
        load_sample_image('flower.jpg'),
        data.coffee(),
        data.rocket(),
        data.astronaut(),
        data.stereo_motorcycle()[0],
    ]


def draw(
    rng: np.random.Generator, photographs: list[np.ndarray]
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draws one image over a crop of one of the photographs.

    Returns:
        Pixels of shape (128, 128, 3), uint8, and for each shape, from back to front, its label (an index into
        CLASSES) and the mask of what is visible of it, bool of shape (128, 128).
    """
    photograph = photographs[rng.integers(len(photographs))]
    top, left = (rng.integers(length - SIZE + 1) for length in photograph.shape[:2])
    pixels = photograph[top : top + SIZE, left : left + SIZE].astype(float)
    objects = []
    for _ in range(0 if rng.random() < EMPTY else rng.integers(2, 7)):
        label, radius = rng.integers(len(CLASSES)), rng.uniform(0.10, 0.24) * SIZE
        mask = _filled(
            outline(CLASSES[label], rng.uniform(-0.3, 0.3)) * radius + rng.uniform(0.1, 0.9, 2) * SIZE
        )
        covered = [(other, before & ~mask, whole) for other, before, whole in objects]
        if any(before.sum() < VISIBLE * whole for _, before, whole in covered):
            continue  # a remnant would be wrong without a mask, and unfair with one
        objects = [*covered, (label, mask, mask.sum())]
        hue = label / len(CLASSES) + rng.normal(0, 0.1)
        pixels[mask] = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, *rng.uniform(0.5, 1, 2)))
    pixels += rng.normal(0, 6, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), [(label, mask) for label, mask, _ in objects]


def label_map(objects: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """The class of each pixel, uint8 of shape (128, 128): 0 is the background, i + 1 is CLASSES[i]."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for label, mask in objects:
        labels[mask] = label + 1
    return labels


def outline(name: str, rotation: float) -> np.ndarray:
    """The corners of a shape that fits the unit circle, (N, 2) as row and column; rotation in radians."""
    corners = dict(circle=48, square=4, triangle=3, star=10)[name]
    angles = rotation + 2 * np.pi * np.arange(corners) / corners
    if name == 'square':
        angles += np.pi / 4
    radius = np.where(np.arange(corners) % 2, 0.45, 1) if name == 'star' else 1
    return np.stack([-np.cos(angles) * radius, np.sin(angles) * radius], axis=1)


def _filled(corners: np.ndarray) -> np.ndarray:
    from skimage.draw import polygon

    mask = np.zeros((SIZE, SIZE), bool)
    mask[polygon(*corners.T, mask.shape)] = True
    return mask


def _part(photograph: np.ndarray, start: float, end: float) -> np.ndarray:
    width = photograph.shape[1]
    return photograph[:, int(width * start) : int(width * end)]


def _annotation(number: int, image: int, label: int, mask: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        id=number,
        image_id=image,
        category_id=int(label) + 1,
        bbox=rle.toBbox(code).tolist(),
        area=int(rle.area(code)),
        segmentation=dict(size=[SIZE, SIZE], counts=code['counts'].decode()),
        iscrowd=0,
    )

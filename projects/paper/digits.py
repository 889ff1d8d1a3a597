"""The demo's data: scikit-learn's 1,797 handwritten digits, as a folder of images."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(root: str | Path) -> None:
    """Writes `root/{train,val}/<digit>/<number>.png`, 80 % and 20 % of each digit; once is enough.

    The images are 8x8, grey, one byte a pixel. The split is the same on every machine.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    root = Path(root)
    if root.is_dir():
        return
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    numbers = np.arange(len(images))
    split = train_test_split(numbers, test_size=0.2, stratify=digits.target, random_state=0)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        for name, members in zip(('train', 'val'), split, strict=True):
            for i in members:
                path = Path(folder) / 'digits' / name / str(digits.target[i]) / f'{i:04d}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[i]).save(path)
        (Path(folder) / 'digits').rename(root)  # whole or not at all

"""A user's folders of images, one folder a class: what is in them, and how they are split."""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..utils.report import replacing
from .checks import check_chosen, check_names, check_readable, some
from .splitting import VAL_SHARE, OwnData, choose_val

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # those of mmpretrain's CustomDataset
VAL_NAMES = ('val', 'valid', 'validation')


def class_folders(train: str, val: str | None, classes: Sequence[str] | None, out: Path) -> OwnData:
    """Where the images of a classifier are, with settings for `ImageFolder`.

    Args:
        train, val: Folders of class folders. Without `val`, subfolders of `train` or a split of it.
        classes: Those that are used, in this order; by default all folders of `train`, sorted.
        out: The folder for lists of images, where there is need of them.

    Raises:
        OSError: There is no such folder.
        ValueError: The folders do not fit, or an image cannot be read.
    """
    train, val = _both(train, val)
    folders = {'train': train, 'val': val or train}
    found = {folder: _images(folder) for folder in dict.fromkeys(folders.values())}
    remarks = [remark for _, remark in found.values() if remark]
    chosen, classes = bool(classes), list(classes or found[train][0])
    parts = {}
    for split, folder in folders.items():
        images = found[folder][0]
        _check_classes(folder, images, classes, chosen, train)
        parts[split] = {name: images[name] for name in classes}
    for split in ('train', 'val') if val else ('train',):
        names = itertools.chain(*parts[split].values())
        check_readable(os.path.join(folders[split], name) for name in names)
    if val is None:
        for_val = choose_val(parts['train'])
        for split, is_val in {'train': False, 'val': True}.items():
            parts[split] = {
                name: [image for image in images if (image in for_val) is is_val]
                for name, images in parts[split].items()
            }
        remarks.append(f'{VAL_SHARE:.0%} of each class are for validation: {out}/train.txt and val.txt')
    settings = {}
    for split, folder in folders.items():
        settings[split] = dict(type='mmadn.ImageFolder', data_root='', data_prefix=folder)
        # mmpretrain numbers all folders in the order of their names: another choice needs a list.
        if val is None or classes != list(found[folder][0]):
            settings[split]['ann_file'] = _write_list(out / f'{split}.txt', parts[split])
    images = {split: sum(map(len, part.values())) for split, part in parts.items()}
    return OwnData(settings, classes, images, remarks)


def _both(train: str, val: str | None) -> tuple[str, str | None]:
    """The two folders, where they may be subfolders of the first."""
    for folder in (train, val):
        if folder is not None and not os.path.isdir(folder):
            raise FileNotFoundError(f'{folder} is no folder; give one that has a folder of images a class')
    if val is not None or not os.path.isdir(os.path.join(train, 'train')):
        return train, val
    for name in VAL_NAMES:
        if os.path.isdir(os.path.join(train, name)):
            return os.path.join(train, 'train'), os.path.join(train, name)
    raise InputError(
        f'{train} has a folder train, and none of {", ".join(VAL_NAMES)}; give both folders, '
        f'{train}/train and the one to validate with, or {train}/train alone, which is split'
    )


def _images(folder: str) -> tuple[dict[str, list[str]], str]:
    """The images of each class folder, relative to `folder`, and a remark on files of other kinds."""
    images: dict[str, list[str]] = {}
    others: Counter = Counter()
    for entry in sorted(os.listdir(folder)):
        if entry.startswith('.') or not os.path.isdir(os.path.join(folder, entry)):
            continue  # as mmpretrain does
        images[entry] = []
        for place, _, files in os.walk(os.path.join(folder, entry), followlinks=True):
            for name in files:
                suffix = os.path.splitext(name)[1].lower()
                if suffix in EXTENSIONS:
                    images[entry].append(os.path.relpath(os.path.join(place, name), folder))
                elif not name.startswith('.'):
                    others[suffix or 'no suffix'] += 1
    images = {name: sorted(members) for name, members in images.items()}
    if not any(images.values()):
        raise InputError(
            f'{folder} has no images in class folders; it must hold them as {folder}/<class>/<image>, '
            f'an image ending in {", ".join(EXTENSIONS)}'
        )
    kinds = ', '.join(f'{number} {suffix}' for suffix, number in others.most_common())
    return images, f'files that are no images are left out in {folder}: {kinds}' if kinds else ''


def _check_classes(
    folder: str, images: dict[str, list[str]], classes: Sequence[str], chosen: bool, train: str
) -> None:
    if len(classes) < 2:
        raise InputError(f'{folder} has the one class {", ".join(classes)}; a classifier needs two or more')
    if chosen:
        check_chosen(folder, list(images), classes)
    else:
        check_names(folder, list(images), classes, train)
    if empty := [name for name in classes if not images[name]]:
        raise InputError(
            f'{folder} has no images in {some(empty)}, where they end in {", ".join(EXTENSIONS)}; remove the '
            'folder, or choose classes with --classes'
        )


def _write_list(path: Path, images: dict[str, list[str]]) -> str:
    with replacing(path) as temporary:
        lines = [f'{image} {label}\n' for label, names in enumerate(images.values()) for image in names]
        temporary.write_text(''.join(lines))
    return str(path)

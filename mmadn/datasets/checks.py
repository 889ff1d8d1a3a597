"""What is wrong with the data of a config, said before any work begins."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop
from mmengine.utils import is_abs

from ..errors import InputError


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Looks for the folders and annotation files of a config before any work begins.

    Args:
        splits: Of 'train', 'val' and 'test'.

    Raises:
        FileNotFoundError: Some are missing; the message names them all.
    """
    missing = [path for split in splits for path in _data_paths(cfg.get(f'{split}_dataloader'))]
    missing = [path for path in dict.fromkeys(missing) if '://' not in path and not Path(path).exists()]
    if missing:
        raise FileNotFoundError(
            f'the data of this config are not there: {", ".join(missing)}; README.md says how they are laid '
            'out (Train), and --cfg-options data_root=/path/to/them moves them'
        )


def _data_paths(node: Any) -> list[str]:
    """All annotation files and their folders in the settings of a data loader, of wrapped datasets too."""
    if isinstance(node, (list, tuple)):
        return [path for item in node for path in _data_paths(item)]
    if not isinstance(node, dict):
        return []
    names, root = [], node.get('data_root') or ''
    if node.get('ann_file'):  # what has no annotation file, as ImageFolder, says itself what it lacks
        prefix = node.get('data_prefix') or ''
        names = [node['ann_file'], *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    found = [name if is_abs(name) else os.path.join(root, name) for name in names if name]
    return found + [path for item in node.values() for path in _data_paths(item)]


def check_classes(loop: BaseLoop) -> None:
    """Stops where a COCO-format data set of a loop does not know the classes it is read with.

    mmdet takes the categories that it finds and counts their labels on from 0.

    Raises:
        ValueError: Categories are missing.
    """
    dataset = loop.dataloader.dataset
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    found, classes = getattr(dataset, 'cat_ids', None), dataset.metainfo.get('classes')
    if found is not None and len(found) != len(classes):
        raise InputError(
            f'{dataset.ann_file} has {len(found)} of the {len(classes)} categories {", ".join(classes)}; '
            "give the dataset those of the file, in its order: metainfo=dict(classes=('cat', 'dog'))"
        )

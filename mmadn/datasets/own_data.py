"""A config for a user's own data: their images and classes in place of those that it was written for."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import InputError
from ..utils.cores import available_cores
from ..utils.distributed import number_of_processes
from ..utils.schedule import fit_schedule
from .checks import OTHER_HEADS
from .class_folders import class_folders
from .coco_files import coco_files
from .splitting import OwnData

KEPT = ('pipeline', 'test_mode', 'filter_cfg', 'backend_args')  # of a data set that another one replaces

SMALL_BATCH, FEW_BATCHES = 16, 8  # a small data set has batches of so many images, or so many batches
# What configs name before they use it: a change of it in the written config would change nothing.
UNUSED = ('dataset_type', 'metainfo', 'train_pipeline', 'test_pipeline')


def use_data(
    cfg: Config,
    train: str,
    val: str | None = None,
    classes: Sequence[str] | None = None,
    images: Sequence[str] = (),
) -> OwnData:
    """Changes a config in place so that it trains and tests on other data.

    Data sets, numbers of classes, metrics, sizes of batches, worker processes and warm-ups follow the data.
    The learning rate follows the size of the batch, where the config says for which one it is. Where the data
    have no part for validation, a fifth of every class becomes one, chosen by the names of the files; the
    lists of both parts are written into the folder `data` of the config's `work_dir`.

    Args:
        cfg: Of a classifier, or of a detector that is trained on COCO.
        train: For a classifier a folder of class folders, or one with subfolders `train` and `val` of that
            kind. For a detector an annotation file in COCO's format, or a folder with two of them.
        val: The same for validation; it is used for tests too.
        classes: Their names, if not all are used.
        images: The folders of a detector's images, one or two, if they are not beside the annotations.

    Returns:
        What was found.

    Raises:
        OSError: A file or a folder is missing.
        ValueError: The data do not fit; the message says what to do.
    """
    out = Path(cfg.get('work_dir') or 'work_dirs') / 'data'
    if 'head' in cfg.model:
        data = class_folders(train, val, classes, out)
    else:
        masks = any(node.get('with_mask') for node in _dicts(cfg.train_dataloader))
        data = coco_files(train, val, classes, images, masks, out)
    for split, source in {'train': 'train', 'val': 'val', 'test': 'val'}.items():
        settings, loader = data.settings[source], cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        old = _innermost(loader, split)
        new = {**settings, 'metainfo': dict(classes=tuple(data.classes))}
        kept = {name: old[name] for name in KEPT if name in old}
        old.clear()
        old.update({**new, **kept})
        loader.num_workers = min(loader.get('num_workers', 0), available_cores())
        for evaluator in _dicts(cfg.get(f'{split}_evaluator')):
            if 'ann_file' in evaluator:
                evaluator.ann_file = settings['ann_file']
    for name in UNUSED:
        cfg.pop(name, None)
    _set_root(cfg, data)
    _set_classes(cfg, len(data.classes))
    share = max(1, data.images['train'] // number_of_processes(cfg))  # of each process
    fit_schedule(cfg, share // _fit_batch(cfg, share))
    return data


def _innermost(loader: Any, split: str) -> Any:
    """The settings of the data set of a loader, inside those that repeat or mix it."""
    node = loader.dataset
    while 'dataset' in node:
        node = node.dataset
    if 'datasets' in node:
        raise InputError(f'{split}_dataloader joins several data sets; put one into a config of your own')
    return node


def _dicts(node: Any, leave: Sequence[str] = ()) -> Iterator[Any]:
    """All dicts in settings, at any level, but for those under the keys `leave`."""
    if isinstance(node, dict):
        yield node
        node = [item for name, item in node.items() if name not in leave]
    for item in node if isinstance(node, (list, tuple)) else ():
        yield from _dicts(item, leave)


def _set_root(cfg: Config, data: OwnData) -> None:
    """`data_root` names the folder that has all images, so that --cfg-options can move them."""
    prefixes = [settings['data_prefix'] for settings in data.settings.values()]
    folders = [prefix if isinstance(prefix, str) else prefix['img'] for prefix in prefixes]
    cfg.pop('data_root', None)
    if len({os.path.isabs(folder) for folder in folders}) == 1:
        root = os.path.commonpath(folders)
        if root not in ('', os.sep):
            cfg.data_root = root


def _set_classes(cfg: Config, number: int) -> None:
    """Sets the number of classes in heads, preprocessor, mixup and metrics, and a top-k that fits it."""
    parts = [cfg.model, cfg.get('data_preprocessor'), cfg.get('val_evaluator'), cfg.get('test_evaluator')]
    for node in _dicts(parts, leave=OTHER_HEADS):
        if 'num_classes' in node:
            node['num_classes'] = number
    for node in _dicts([cfg.model.get('head'), *parts[2:]]):  # elsewhere a top-k is of other things
        if 'topk' in node:
            node['topk'] = _fitting(node['topk'], number)


def _fitting(topk: int | Sequence[int], classes: int) -> int | tuple[int, ...]:
    """Without what is always right: as many guesses as there are classes."""
    if isinstance(topk, int):
        return topk if topk < classes else 1
    return tuple(k for k in topk if k < classes) or (1,)


def _fit_batch(cfg: Config, images: int) -> int:
    """Makes an epoch of a process have several batches, if there are enough images; returns their size."""
    loader = cfg.train_dataloader
    loader.batch_size = min(loader.get('batch_size', 1), max(SMALL_BATCH, images // FEW_BATCHES), images)
    left = images % loader.batch_size
    if 'head' in cfg.model and left == 1 and 'batch_sampler' not in loader:
        loader.drop_last = True  # a single image at the end of an epoch has no batch statistics
    if (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        cfg.auto_scale_lr.enable = True
    return loader.batch_size

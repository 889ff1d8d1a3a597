"""What is wrong with the data of a config, said before any work begins."""

import itertools
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmengine
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import BaseLoop, Runner
from mmengine.utils import is_abs
from PIL import Image
from torch import nn

from ..depth import unwrap
from ..errors import InputError
from ..utils.explain import near

# These heads tell objects from background, or paint stuff, and count no classes of the data set.
OTHER_HEADS = ('rpn_head', 'semantic_head')
MOST_OPENED = 20_000  # images that are looked at before a training; more would take minutes


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
            'out (Train), --cfg-options data_root=/path/to/them moves them, and tools/train.py takes others '
            'by --data'
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


def check_weights(cfg: Config) -> None:
    """Looks for the pretrained weights that the model of a config starts from.

    Where the whole model is loaded or resumed, nothing else is read: the settings for pretrained weights,
    which a config may have inherited, are taken out of `cfg`.

    Raises:
        FileNotFoundError: A file is missing.
    """
    whole = cfg.get('load_from')
    if whole and '://' not in whole and not Path(whole).exists():
        raise FileNotFoundError(f'there is no checkpoint {whole}')
    for node, path in list(_pretrained(cfg.model)):
        if whole or cfg.get('resume'):
            node['init_cfg'] = None
        elif '://' not in path and not Path(path).exists():
            raise FileNotFoundError(
                f'the weights that this config starts from are not there: {path}; put them there, start '
                'from a checkpoint of the whole model by --load-from, or from nothing by --cfg-options '
                'model.backbone.init_cfg=None'
            )


def _pretrained(node: Any) -> Iterable[tuple[dict, str]]:
    """The parts of a model's settings that load weights, and the weights."""
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _pretrained(item)
    init = node.get('init_cfg') if isinstance(node, dict) else None
    if isinstance(init, dict) and init.get('checkpoint'):
        yield node, init['checkpoint']


def check_loops(runner: Runner, splits: Sequence[str]) -> None:
    """Stops where data sets do not fit each other or the model, or metrics do not fit the data.

    Their data sets from here on name an image that cannot be read.

    Args:
        splits: Of 'train', 'val' and 'test'.

    Raises:
        ValueError: The message names the classes or the setting.
    """
    known = {}
    for split in splits:
        loop = getattr(runner, f'{split}_loop')
        if loop is None:
            continue
        dataset = innermost(loop.dataloader.dataset)
        name_unreadable_images(dataset)
        classes = dataset.metainfo.get('classes')
        check_coco(dataset)
        if classes is None:
            continue
        known[split] = tuple(classes)
        check_heads(runner.model, len(classes), split)
        check_topk(loop, len(classes), split)
    if {'train', 'val'} <= known.keys():
        check_names('the validation data', known['val'], known['train'], 'the training data')


def innermost(dataset: Any) -> BaseDataset:
    """The data set inside others that repeat or mix it."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def check_coco(dataset: BaseDataset) -> None:
    """Stops where a data set in COCO's format has other categories than the classes it is read with.

    mmdet takes the categories that it finds, in the order of the file, and counts their labels on from 0.
    """
    found, classes = getattr(dataset, 'cat_ids', None), list(dataset.metainfo.get('classes') or ())
    if found is None or len(found) == len(classes) and classes == list(dataset.METAINFO.get('classes', ())):
        return
    own = {each['id']: each['name'] for each in mmengine.load(dataset.ann_file)['categories']}
    if [own[number] for number in found] != classes:
        amount = f'{len(found)} of the' if len(found) != len(classes) else 'in another order the'
        raise InputError(
            f'{dataset.ann_file} has {amount} {len(classes)} categories {some(classes)}; its own are '
            f'{some(list(own.values()))}: give the data set those, in this order, by '
            f"metainfo=dict(classes=('cat', 'dog')), and the heads their number, or train with --data"
        )


def check_names(
    where: str, found: Sequence[str], classes: Sequence[str], reference: str, exact: bool = True
) -> None:
    """Stops where the names of classes are not those that they should be, as labels would shift unnoticed.

    Args:
        where: What has the classes `found`.
        classes: The classes that there should be, those of `reference`.
        exact: Whether there may be no others.

    Raises:
        ValueError: The message names what is missing, and what is too much.
    """
    missing = [name for name in classes if name not in found]
    more = [name for name in found if name not in classes] if exact or missing else []
    if missing or (exact and more):
        what = [f'without {some(missing)}'] * bool(missing) + [f'with {some(more)}'] * bool(more)
        raise InputError(
            f'{where}: other classes than {reference} ({some(classes)}), {" and ".join(what)}; rename or '
            'remove folders or categories, or choose what both have with --classes'
        )
    if exact and list(found) != list(classes):
        raise InputError(f'{where} has the classes of {reference} in another order: {some(found)}')


def check_chosen(where: str, found: Sequence[str], classes: Sequence[str]) -> None:
    """Stops where a class that the user chose is not among those of the data."""
    for name in classes:
        if name not in found:
            raise InputError(f'{where} has no class {name!r}, only {some(found)}{near(name, found)}')


def some(names: Sequence[str]) -> str:
    """Names in a sentence, the first ten of many."""
    shown = ', '.join(map(str, names[:10]))
    return shown if len(names) <= 10 else f'{shown} and {len(names) - 10} more'


def check_heads(model: nn.Module, classes: int, split: str) -> None:
    """Stops where a head has another number of classes than the data."""
    for name, module in unwrap(model).named_modules():
        number = getattr(module, 'num_classes', None)
        is_one = name and type(number) is int and number > 0  # a backbone without a classifier has -1
        if is_one and not any(part in OTHER_HEADS for part in name.split('.')):
            if number != classes:
                raise InputError(
                    f'model.{name} has num_classes={number}, and the {split} data have {classes} classes; '
                    f'give it --cfg-options model.{name}.num_classes={classes}, or train with --data, which '
                    'sets all of them'
                )


def check_topk(loop: BaseLoop, classes: int, split: str) -> None:
    """Stops where an accuracy counts more guesses than there are classes."""
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        topk = getattr(metric, 'topk', ())
        if any(k > classes for k in ([topk] if isinstance(topk, int) else topk)):
            raise InputError(
                f'{split}_evaluator has topk={topk}, and there are {classes} classes; give it topk=1'
            )


def check_readable(paths: Iterable[str]) -> None:
    """Opens images, as far as there are not too many; raises ValueError with the names of all that fail."""
    bad = [path for path in itertools.islice(paths, MOST_OPENED) if not _opens(path)]
    if bad:
        raise InputError(
            f'{some(bad)}: {"no image" if len(bad) == 1 else "no images"} that can be read; '
            'replace or remove what is damaged'
        )


def _opens(path: str) -> bool:
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError):  # PIL.UnidentifiedImageError is an OSError
        return False


def name_unreadable_images(dataset: BaseDataset) -> None:
    """Lets a data set say which image it is that cannot be read, also from the process of a data worker."""
    dataset.prepare_data = partial(_prepare_data, dataset)


def _prepare_data(dataset: BaseDataset, index: int) -> Any:
    try:
        return type(dataset).prepare_data(dataset, index)
    except (AssertionError, cv2.error, OSError) as error:  # which of them depends on how it is damaged
        path = dataset.get_data_info(index).get('img_path')
        if path is None or _decodes(path):
            raise
        raise InputError(f'{path} cannot be read as an image; replace or remove it') from error


def _decodes(path: str) -> bool:
    try:
        return mmcv.imread(path) is not None
    except (cv2.error, OSError):
        return False

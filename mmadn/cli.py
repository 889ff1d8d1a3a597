"""What the command lines in `tools/` share."""

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.utils import is_abs

from .distributed import launch_on_cpu
from .loading import another_model


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every tool over a config takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where results go; by default work_dirs/<name of the config>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of the config, such as train_cfg.max_epochs=10',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """The config of parsed arguments, with `--cfg-options` merged and the processes set up."""
    cfg = Config.fromfile(args.config)
    merge_options(cfg, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    cfg.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    launch_on_cpu(cfg)
    return cfg


def merge_options(cfg, options: dict) -> None:
    """Merges `--cfg-options`; a new `data_root` reaches all paths of the config under the old one.

    A plain `cfg.merge_from_dict(options)` changes the name `data_root` and not the datasets, which
    have read it when the config was loaded.

    Args:
        cfg (mmengine.Config): Changed in place.
        options (dict): Values by dotted names, as mmengine's DictAction collects them.
    """
    old, new = cfg.get('data_root'), options.get('data_root')
    if old and new:
        for name, value in list(cfg.items()):
            cfg[name] = _moved(value, old.rstrip('/'), new.rstrip('/'))
    cfg.merge_from_dict(options)


def _moved(value, old, new):
    if isinstance(value, dict):
        return type(value)({key: _moved(item, old, new) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    if isinstance(value, str) and (value == old or value.startswith(f'{old}/')):
        return new + value[len(old) :]
    return value


def check_data(cfg: Config, splits) -> None:
    """Looks for the folders and annotation files of a config before any work begins.

    Args:
        splits (Sequence[str]): Of 'train', 'val' and 'test'.

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


def _data_paths(node):
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


def check_classes(loop) -> None:
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
        raise ValueError(
            f'{dataset.ann_file} has {len(found)} of the {len(classes)} categories {", ".join(classes)}; '
            "give the dataset those of the file, in its order: metainfo=dict(classes=('cat', 'dog'))"
        )


def load_weights(runner, checkpoint) -> None:
    """Loads a checkpoint into the model of a runner; mmengine itself only warns if it is another's.

    Raises:
        ValueError: The checkpoint is not one of this model.
    """
    try:
        runner.load_checkpoint(str(checkpoint), strict=True)
    except RuntimeError as error:
        raise another_model(checkpoint, error) from error


@contextmanager
def plain_errors(errors=(OSError, ValueError)):
    """Ends the program with one line, `error: ...`, for an error that the user can mend."""
    try:
        yield
    except errors as error:
        sys.exit(f'error: {error}')

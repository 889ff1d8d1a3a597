"""What the command lines in `tools/` share."""

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction

from .engine.distributed import launch_on_cpu
from .errors import UserError
from .evaluation.prediction import DTYPES
from .evaluation.timing import CLOCKS
from .utils.packaged import config_path


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every tool over a config takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', type=config_path, help='path, or packaged name, of the config')
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


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every command takes that runs a model at its depths on one device, without a Runner."""
    option = parser.add_argument
    about = 'path, or packaged name, of the config of a classifier or a detector with adaptive depth'
    option('config', type=config_path, help=about)
    option('checkpoint', nargs='?', help='path of the checkpoint; without one the weights are untrained')
    option('--device', default='cpu', help='cpu, cuda or cuda:N')
    option(
        '--shape', type=int, nargs=3, metavar=('C', 'H', 'W'), help='by default what the config tests with'
    )
    option('--dtype', choices=DTYPES, default='float32', help='the others by autocast')
    option('--clock', choices=CLOCKS, default='wall', help='cpu: processor time')
    option('--threads', type=int, default=torch.get_num_threads(), help='of the operators')
    option('--out', help='folder of the results; by default work_dirs/<name of the config>')
    option('--cfg-options', nargs='+', action=DictAction, default={}, help='settings that replace others')


def load_config(args: argparse.Namespace) -> Config:
    """The config of parsed arguments, with `--cfg-options` merged and the processes set up."""
    cfg = Config.fromfile(args.config)
    merge_options(cfg, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    cfg.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    launch_on_cpu(cfg)
    return cfg


def merge_options(cfg: Config, options: dict) -> None:
    """Merges `--cfg-options`; a new `data_root` reaches all paths of the config under the old one.

    A plain `cfg.merge_from_dict(options)` changes the name `data_root` and not the datasets, which
    have read it when the config was loaded.

    Args:
        cfg: Changed in place.
        options: Values by dotted names, as mmengine's DictAction collects them.
    """
    old, new = cfg.get('data_root'), options.get('data_root')
    if old and new:
        for name, value in list(cfg.items()):
            cfg[name] = _moved(value, old.rstrip('/'), new.rstrip('/'))
    cfg.merge_from_dict(options)


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return type(value)({key: _moved(item, old, new) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    if isinstance(value, str) and (value == old or value.startswith(f'{old}/')):
        return new + value[len(old) :]
    return value


@contextmanager
def plain_errors():
    """Ends the program with one line, `error: ...`, for an error that the user can mend."""
    try:
        yield
    except (UserError, OSError) as error:
        sys.exit(f'error: {error}')
    except ModuleNotFoundError as error:
        if error.name != 'mmcv._ext' and 'mmdet' not in str(error):
            raise
        sys.exit(f'error: {error}; detectors need mmdet, and mmcv with compiled operators: `make setup`')

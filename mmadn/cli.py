"""What the command lines in `tools/` share."""

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from .errors import InputError, UserError
from .evaluation.prediction import DTYPES
from .evaluation.timing import CLOCKS
from .utils.distributed import launch_on_cpu
from .utils.explain import explain, message, near
from .utils.packaged import config_path
from .utils.quiet_imports import import_quietly

# What mmengine's Runner reads of a config beside its own arguments, and a config need not have.
READ_BY_RUNNER = (
    *('activation_checkpointing', 'cudnn_benchmark', 'compile', 'custom_imports', 'data_root'),
    *('efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'tta_model'),
)


def positive(text: str) -> int:
    """The type of an argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r}: give a whole number from 1 on')
    return int(text)


def check_device(text: str) -> str:
    """Returns the name of a device as it is; raises ValueError if there is no such device here."""
    name, _, index = text.partition(':')
    known = text == 'cpu' or name == 'cuda' and (index.isdecimal() or text == 'cuda')
    if not known:
        raise InputError(f'device {text!r}: give cpu, cuda or cuda:N')
    if name == 'cuda' and int(index or 0) >= torch.cuda.device_count():
        raise InputError(
            f'device {text!r}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here; '
            'give a lower number or cpu, or install a build of torch that fits the driver'
        )
    return text


def device(text: str) -> str:
    """The type of an argument that names a device."""
    try:
        return check_device(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


BY_DEFAULT = 'by default the work_dir of the config, or work_dirs/<its name>'


def results_folder(cfg: Config, config: str, given: str | None = None) -> str:
    """Where results go: where the user says, else into the work dir of the config at the path `config`."""
    return given or cfg.get('work_dir') or f'work_dirs/{Path(config).stem}'


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every tool over a config takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', type=config_path, help='path, or packaged name, of the config')
    parser.add_argument('--work-dir', help=f'where results go; {BY_DEFAULT}')
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
    option('--out', help=f'folder of the results; {BY_DEFAULT}')
    option('--cfg-options', nargs='+', action=DictAction, default={}, help='settings that replace others')


def load_config(args: argparse.Namespace) -> Config:
    """The config of parsed arguments, with `--cfg-options` merged and the processes set up."""
    cfg = Config.fromfile(args.config)
    merge_options(cfg, args.cfg_options)
    import_quietly(cfg.get('default_scope'))
    cfg.work_dir = results_folder(cfg, args.config, args.work_dir)
    cfg.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    launch_on_cpu(cfg)
    return cfg


def merge_options(cfg: Config, options: dict) -> None:
    """Merges `--cfg-options`; a `data_root`, also one that the config has set, reaches all paths of the data.

    A plain `cfg.merge_from_dict(options)` changes the name `data_root` and not the datasets, which
    have read it when the config was loaded; and so does a config that sets it over a `_base_`.

    Args:
        cfg: Changed in place.
        options: Values by dotted names, as mmengine's DictAction collects them.

    Raises:
        ValueError: An option sets what nothing reads, or a `data_root` is that of no data.
    """
    check_options(cfg, options)
    if _is_left_over(cfg):
        cfg.pop('data_root')
    for new in (cfg.get('data_root'), options.get('data_root')):
        if new:
            move_data(cfg, new.rstrip('/'))
    cfg.merge_from_dict(options)


def _is_left_over(cfg: Config) -> bool:
    """Whether `data_root` is a name that a `_base_` has set for data sets of which the config has others."""
    root = (cfg.get('data_root') or '').rstrip('/')
    if not root or not cfg.filename or any(_is_under(path, root) for path in _strings(_loaders(cfg))):
        return False
    return not re.search(r'^data_root\s*=', Path(cfg.filename).read_text(), re.MULTILINE)


def move_data(cfg: Config, new: str) -> None:
    """Moves all paths of the data of a config to another root; nothing, if some are under it already."""
    loaders = _loaders(cfg)
    paths = set(_strings(loaders))
    roots = {root.rstrip('/') for root in _strings(loaders, 'data_root')} - {''}
    old = (cfg.get('data_root') or '').rstrip('/')
    if not any(loaders) or (old == new and any(_is_under(path, new) for path in paths)):
        return
    if not old or not any(_is_under(path, old) for path in paths):
        if len(roots) != 1:
            raise InputError(
                f'data_root={new!r} is that of no data set here; they have {sorted(roots) or "none"}; set '
                'train_dataloader.dataset.data_root and those of val and test, or train with --data'
            )
        (old,) = roots
    for name, value in list(cfg.items()):
        cfg[name] = _moved(value, old, new)


def _loaders(cfg: Config) -> list[dict | None]:
    return [cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')]


def _strings(node: Any, key: str | None = None) -> Iterator[str]:
    """All strings in settings, or those of a key."""
    items = node.items() if isinstance(node, dict) else ((None, i) for i in node) if _is_list(node) else ()
    for name, item in items:
        if isinstance(item, str) and key in (None, name):
            yield item
        yield from _strings(item, key)


def _is_list(node: Any) -> bool:
    return isinstance(node, (list, tuple))


def _is_under(path: str, root: str) -> bool:
    return path == root or path.startswith(f'{root}/')


def check_options(cfg: Config, options: dict) -> None:
    """Stops at an option that nothing reads: one whose first name no config has, or a misspelt one.

    What a class does not take it refuses itself when it is built. Settings without a `type` are of no class.

    Raises:
        ValueError: The message has the name that is most like it.
    """
    for option in options:
        first, *names = option.split('.')
        known = {*cfg, *inspect.signature(Runner).parameters, *READ_BY_RUNNER}
        if first not in known:
            raise InputError(f'{option}: a config has no {first!r}{near(first, known)}')
        node = cfg.get(first)
        for name in names:
            if not isinstance(node, dict) or name not in node:
                guess = near(name, node) if isinstance(node, dict) and 'type' not in node else ''
                if guess:
                    raise InputError(f'{option}: there is no {name!r}{guess}')
                break
            node = node[name]


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return type(value)({key: _moved(item, old, new) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    if isinstance(value, str) and _is_under(value, old):
        return new + value[len(old) :]
    return value


@contextmanager
def plain_errors():
    """Ends the program with one line, `error: ...`, for an error that the user can mend."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit('stopped')
    except (UserError, OSError) as error:
        sys.exit(f'error: {message(error)}')
    except Exception as error:
        if explained := explain(error):
            sys.exit(f'error: {explained}')
        raise

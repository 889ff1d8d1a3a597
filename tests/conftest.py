import argparse
import importlib.util
import json
import logging
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

import mmadn  # noqa: F401  first, for torchvision
from mmadn.cli import check_device
from mmadn.errors import InputError

torch.set_num_threads(1)  # the networks here are tiny: threads only wait for each other
logging.disable(logging.INFO)  # mmengine logs a page for each model that it initialises

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / 'tests' / 'data' / 'published'
# The networks of which there is golden data.
GOLDEN = sorted(path.stem for path in PUBLISHED.glob('*.json') if 'step' not in path.stem)


def pytest_addoption(parser):
    parser.addoption('--device', default='cpu', help='of tests/test_device.py: cpu, cuda or cuda:N')


@pytest.fixture(scope='session')
def device(request):
    """The device to test on."""
    return check_device(request.config.getoption('--device'))


def pytest_configure(config):
    try:
        check_device(config.getoption('--device'))
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(autouse=True)
def _deterministic():
    """No test sees what another one left: neither random numbers nor mmengine's default scope."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


class Parsed(Exception):
    """Ends a tool as soon as it has understood its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


@pytest.fixture
def parse(monkeypatch):
    """`parse(tool, arguments)` lets a tool read its arguments, runs nothing else, and returns its parser."""
    parse_args, known = argparse.ArgumentParser.parse_args, {}

    def stop(parser, args=None, namespace=None):
        if len(sys.argv) > 1:
            parse_args(parser, args, namespace)
        raise Parsed(parser)

    def run(tool, arguments=()):
        monkeypatch.setattr(sys, 'argv', [tool.name, *arguments])
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        monkeypatch.setattr(sys, 'path', [str(tool.parent), *sys.path])
        known.setdefault(tool, runpy.run_path(str(tool))['main'])
        with pytest.raises(Parsed) as parsed:
            known[tool]()
        return parsed.value.parser

    return run


@pytest.fixture
def threads():
    """`threads(n)` computes with n threads for the rest of the test."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def reference():
    """Loads golden data of the published networks: `reference(name)`, with `.fill` for the weights."""
    spec = importlib.util.spec_from_file_location('fill', PUBLISHED / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)

    def load(name):
        return json.loads((PUBLISHED / f'{name}.json').read_text())

    load.fill = fill
    return load


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """Eight digits of each class in either split; `.small` are arguments that train on them for an epoch."""
    from projects.paper.digits import write_digits

    class Digits:
        full = tmp_path_factory.mktemp('digits') / 'full'
        root = full.parent / 'small'

    write_digits(Digits.full)
    for folder in Digits.full.glob('*/*'):
        few = Digits.root / folder.relative_to(Digits.full)
        few.mkdir(parents=True)
        for path in sorted(folder.iterdir())[:8]:
            (few / path.name).hardlink_to(path)
    Digits.small = [
        '--cfg-options',
        f'data_root={Digits.root}',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'model.backbone.base_channels=4',
        'model.backbone.stem_channels=4',
        'model.head.in_channels=128',
        'default_hooks.checkpoint.interval=1',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    ]
    return Digits

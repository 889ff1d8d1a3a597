import json
import runpy
import sys

import pytest
import torch
import toy
from conftest import ROOT
from mmengine.config import Config, DictAction

from mmadn import cli
from mmadn.checkpoint.files import load_model
from mmadn.evaluation import subnets
from mmadn.evaluation.flops import complexity
from mmadn.evaluation.subnets import evaluate_subnets, is_adaptive, table, write_report
from mmadn.utils.report import pareto_front

ROWS = [
    {'skip': 'FF', 'gflops': 4.0, 'params': 10.0, 'latency_ms': 10.0, 'accuracy/top1': 80.0},
    {'skip': 'FT', 'gflops': 3.0, 'params': 8.0, 'latency_ms': 8.0, 'accuracy/top1': 81.0},
    {'skip': 'TF', 'gflops': 3.0, 'params': 9.0, 'latency_ms': 9.0, 'accuracy/top1': 79.0},
    {'skip': 'TT', 'gflops': 2.0, 'params': 7.0, 'latency_ms': 7.0, 'accuracy/top1': 75.0},
]


def test_pareto_front_keeps_what_no_other_beats():
    assert [r['skip'] for r in pareto_front(ROWS, 'gflops', 'accuracy/top1')] == ['TT', 'FT']
    assert [r['Pareto'] for r in table(ROWS)] == ['', '*', '', '*']


def test_report(tmp_path):
    write_report(ROWS, tmp_path / 'new', config='c.py')
    data = json.loads((tmp_path / 'new' / 'subnets.json').read_text())
    assert data['subnets'] == ROWS and data['config'] == 'c.py' and 'torch' in data['machine']
    lines = (tmp_path / 'new' / 'subnets.md').read_text().splitlines()
    assert len(lines) == 6 and lines[2].startswith('| FF ')
    assert (tmp_path / 'new' / 'subnets.png').read_bytes().startswith(b'\x89PNG')
    assert len(list((tmp_path / 'new').iterdir())) == 3


def test_complexity_follows_the_depth():
    model = toy.build()
    model.eval()
    cost = {}
    for skip in ('FFFF', 'FFTF', 'TTTT'):
        with model.backbone.skipping(skip):
            cost[skip] = complexity(model, torch.zeros(1, 3, 32, 32))
    assert cost['FFFF']['gflops'] > cost['FFTF']['gflops'] > cost['TTTT']['gflops']
    blocks = [sum(p.numel() for p in b.parameters()) for b in list(model.backbone.layer3)[3:]]
    # What stage 3 skips, and nothing for its norms: one copy takes the other's place.
    assert (cost['FFFF']['params'] - cost['FFTF']['params']) * 1e6 == pytest.approx(sum(blocks))
    tracker = torch.nn.Module()
    tracker.detector = model  # at FFFF
    assert complexity(tracker, torch.zeros(1, 2, 3, 32, 32)) == cost['FFFF']


@pytest.mark.parametrize(
    'model, adaptive',
    [
        (dict(backbone=dict(type='mmadn.ADNResNet')), True),
        (dict(detector=dict(backbone=dict(type='mmadn.ADNResNet'))), True),
        (dict(detector=dict(backbone=dict(type='ResNet'), neck=dict(type='FPN'))), False),
    ],
)
def test_a_config_says_whether_its_model_is_adaptive(model, adaptive):
    assert is_adaptive(Config(dict(model=model, default_scope='mmpretrain'))) == adaptive


@pytest.fixture
def dtypes(monkeypatch):
    """The dtypes that convolutions compute in while a test runs."""
    seen, forward = set(), torch.nn.Conv2d.forward

    def watched(self, x):
        result = forward(self, x)
        seen.add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.Conv2d, 'forward', watched)
    return seen


@pytest.mark.parametrize('fp16, dtype', [(True, torch.bfloat16), (False, torch.float32)])  # on a CPU
@pytest.mark.parametrize('how', ['adaptive', 'ordinary', 'tool'])
def test_the_precision_of_the_config_is_kept(how, fp16, dtype, dtypes, digits, tmp_path, monkeypatch):
    name = 'resnet50_digits.py' if how == 'ordinary' else 'resnet50_adn_digits.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'demo' / name)
    options = dict(option.split('=', 1) for option in digits.small[1:])
    options = {key: DictAction._parse_iterable(value) for key, value in options.items()}
    cli.merge_options(cfg, {**options, 'test_cfg.fp16': fp16})
    cfg.work_dir = str(tmp_path)
    cfg.dump(tmp_path / 'config.py')
    torch.save({'state_dict': load_model(cfg).state_dict()}, tmp_path / 'weights.pth')
    if how == 'tool':
        arguments = [tmp_path / 'config.py', tmp_path / 'weights.pth', '--skip', 'TTTT']
        monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools' / 'test.py'), run_name='__main__')
    else:
        monkeypatch.setattr(subnets, 'complexity', lambda model, inputs: {})  # counts in float32 anyway
        evaluate_subnets(cfg, str(tmp_path / 'weights.pth'), 'all' if how == 'ordinary' else ['TTTT'])
    assert dtypes == {dtype}


def test_an_evaluator_without_metrics_is_refused(monkeypatch, tmp_path):
    runner = toy.runner(tmp_path, test_evaluator=dict(type='DumpResults', out_file_path=f'{tmp_path}/a.pkl'))
    monkeypatch.setattr(subnets, 'quiet_runner', lambda cfg: runner)
    torch.save({'state_dict': runner.model.state_dict()}, tmp_path / 'weights.pth')
    cfg = Config(dict(model=toy.model_cfg(), default_scope='mmpretrain'))
    with pytest.raises(ValueError, match='the test_evaluator gave no metrics'):
        evaluate_subnets(cfg, str(tmp_path / 'weights.pth'))

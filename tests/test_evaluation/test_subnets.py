import json

import pytest
import torch
import toy

from mmadn.evaluation.flops import complexity
from mmadn.evaluation.subnets import table, write_report
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

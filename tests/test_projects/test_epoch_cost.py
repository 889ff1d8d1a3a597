"""Time and memory of an epoch. No test depends on how fast it is."""

import json
import re
import runpy
import sys
from pprint import pformat

import pytest
import torch
import toy
from conftest import ROOT
from mmengine.config import Config

from projects.paper.epoch_cost import epoch_cost
from projects.paper.epoch_cost_report import remarks, tables, write_report
from projects.paper.timed_step import IMAGENET, TrainStep

FIXED = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=32), dict(type='PackInputs')]
FREE = [FIXED[0], FIXED[-1]]
STOCK = dict(type='ResNet')
BASE = dict(type='mmadn.ShortResNet', blocks=(2, 2, 3, 2))
HOOK = dict(type='mmadn.SelfDistillationHook')
CONFIGS = dict(adaptive=(None, [HOOK]), full=(STOCK, []), base=(BASE, []))


def config(role, hooks=None, backbone=None, pipeline=FIXED, dataset=None, optim_wrapper=None, **loader):
    theirs, custom = CONFIGS[role]
    model = toy.model_cfg(backbone=backbone or theirs)
    model['train_cfg'] = loader.pop('train_cfg', None)
    data = dict(type='mmadn.ImageFolder', data_root='nowhere', data_prefix='train', pipeline=pipeline)
    return Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            train_dataloader={'batch_size': 8, 'dataset': {**data, **(dataset or {})}, **loader},
            optim_wrapper={'optimizer': dict(type='SGD', lr=0.1, momentum=0.9), **(optim_wrapper or {})},
            custom_hooks=custom if hooks is None else hooks,
        )
    )


def configs(**settings):
    return {role: config(role, **settings) for role in CONFIGS}


@pytest.fixture(scope='module')
def report():
    return epoch_cost(configs(), rounds=2, warmup=1, images=100)


def test_epoch_is_the_median_step_times_the_iterations(report):
    assert list(report['networks']) == ['adaptive', 'full', 'base']
    assert report['images'] == 100 and report['iterations'] == 13
    assert report['settings']['batch'] == 8 and report['settings']['shape'] == [3, 32, 32]
    for role, network in report['networks'].items():
        assert len(report['times_ms'][role]) == 2 and min(report['times_ms'][role]) > 0
        assert network['epoch_s'] == pytest.approx(network['step_ms']['median'] * 13 / 1000)


def test_ratio_of_the_time_is_taken_within_a_round(report):
    times = report['times_ms']
    rounds = [a / (b + c) for a, b, c in zip(times['adaptive'], times['full'], times['base'], strict=True)]
    assert report['ratios']['time, adaptive / (full + base)']['median'] == pytest.approx(sum(rounds) / 2)


def test_self_distillation_needs_the_memory_of_the_full_network(report):
    memory = {role: network['memory_mib'] for role, network in report['networks'].items()}
    assert 1 < report['ratios']['memory, adaptive / full']['median'] < 1.1  # of second norms and teacher
    assert memory['base'] < 0.9 * memory['full']


@pytest.mark.parametrize(
    'hook, depths',
    [(HOOK, ['FFFF', 'TTTT']), ({**HOOK, 'depths': ['base', 'super']}, ['TTTT', 'FFFF'])],
    ids=['default', 'turned'],
)
def test_step_is_that_of_the_hook_in_the_config(hook, depths):
    step = TrainStep('adaptive', config('adaptive', [dict(type='EMAHook'), hook]), 'cpu')
    seen = []
    step.model.backbone.register_forward_hook(lambda module, *_: seen.append(module.skip))
    step.draw(4, (3, 32, 32), toy.CLASSES)
    step.rehearse()
    assert seen == depths


def test_random_depths_are_drawn_anew():
    hook = {**HOOK, 'depths': ['super', 'random']}
    step = TrainStep('adaptive', config('adaptive', [hook]), 'cpu')
    step.draw(4, (3, 32, 32), toy.CLASSES)
    drawn = []
    for _ in range(6):
        step.prepare()
        drawn.append(step.hooks[0].skips[1])
    assert len(set(drawn)) > 2


def test_step_of_an_individual_network_is_its_own():
    step = TrainStep('full', config('full'), 'cpu')
    passes = []
    step.model.backbone.register_forward_hook(lambda *_: passes.append(1))
    step.draw(4, (3, 32, 32), toy.CLASSES)
    step.rehearse()
    assert len(passes) == 1 and step.hooks == []


def test_weights_stay_and_the_optimizer_works():
    step = TrainStep('full', config('full'), 'cpu')
    before = [p.detach().clone() for p in step.model.parameters()]
    step.draw(4, (3, 32, 32), toy.CLASSES)
    for _ in range(2):
        step.rehearse()
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
    state = step.wrapper.optimizer.state
    assert len(state) == len(before) and any(s['momentum_buffer'].any() for s in state.values())


def test_mixup_mixes_labels_and_not_what_was_mixed():
    augments = dict(augments=dict(type='Mixup', alpha=1.0))
    step = TrainStep('full', config('full', train_cfg=augments), 'cpu')
    step.draw(16, (3, 32, 32), toy.CLASSES)
    for _ in range(4):
        step.rehearse()
        scores = torch.stack([sample.gt_score for sample in step.batch['data_samples']])
        of = (scores > 0).sum(1)
        assert of.max() == 2 and torch.allclose(scores.sum(1), torch.ones(16))


@pytest.mark.parametrize(
    'pipeline, shape',
    [
        (FIXED, (3, 32, 32)),
        (FREE, (3, 8, 8)),
        ([FREE[0], dict(type='Resize', scale=(40, 24)), FREE[1]], (3, 24, 40)),
    ],
    ids=['crop', 'of the data', 'resize'],
)
def test_images_have_the_shape_that_the_pipeline_makes(digits, pipeline, shape):
    cfg = config('full', pipeline=pipeline, dataset=dict(data_root=str(digits.root)))
    assert TrainStep('full', cfg, 'cpu').image_shape() == shape


@pytest.mark.parametrize('drop_last, iterations', [(False, 11), (True, 10)])
def test_iterations_of_an_epoch(digits, drop_last, iterations):
    cfg = config('full', dataset=dict(data_root=str(digits.root)), drop_last=drop_last)
    step = TrainStep('full', cfg, 'cpu')
    assert step.count_images() == 80
    step.draw(8, (3, 32, 32), toy.CLASSES)
    assert step.iterations(80 + 4) == iterations


def test_imagenet_is_known_without_its_data():
    step = TrainStep('full', config('full', dataset=dict(num_classes=1000)), 'cpu')
    assert step.count_images() == IMAGENET == 1281167
    step.draw(64, (3, 32, 32), toy.CLASSES)
    assert step.iterations(IMAGENET) == 20019


@pytest.mark.parametrize(
    'change, settings, message',
    [
        (dict(adaptive=config('full')), {}, 'the adaptive config trains without SelfDistillationHook'),
        (dict(full=config('adaptive')), {}, 'the full config trains by SelfDistillationHook'),
        (
            dict(base=config('full')),
            {},
            'the base network has .* M parameters and the full one .* the smaller',
        ),
        (
            dict(full=config('full', batch_size=4)),
            {},
            'differ in the batch size: adaptive 8, full 4, base 8;',
        ),
        (
            dict(full=config('full', pipeline=[FIXED[0], dict(type='Resize', scale=40), FIXED[-1]])),
            {},
            r'differ in the shape of an image: adaptive \(3, 32, 32\), full \(3, 40, 40\).*give --shape',
        ),
        (
            dict(full=Config(dict(default_scope='mmpretrain'))),
            {},
            'full config has no model, train_dataloader',
        ),
        (
            dict(base=config('base', optim_wrapper=dict(type='AmpOptimWrapper'))),
            {},
            'the base config trains by AmpOptimWrapper, .*--cfg-options optim_wrapper.type=OptimWrapper',
        ),
        ({}, dict(batch=1), 'a step of the adaptive network fails with batch 1 of 3x32x32: Expected more'),
        ({}, dict(rounds=0), 'rounds=0: give a whole number'),
        ({}, dict(images=-1), 'images=-1: give a whole number'),
        ({}, dict(device='gpu'), "device='gpu': give cpu, cuda or cuda:N"),
        ({}, dict(device='cuda:99'), 'torch sees'),
        ({}, dict(clock='sun'), "clock='sun': give one of"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, settings, message):
    with pytest.raises(ValueError, match=message):
        epoch_cost({**configs(), **change}, **{'rounds': 1, 'warmup': 1, 'images': 8, **settings})


def test_without_data_the_number_and_the_shape_have_to_be_given():
    with pytest.raises(FileNotFoundError, match='nowhere.*give --images and --shape'):
        epoch_cost(configs(), rounds=1, warmup=1)
    with pytest.raises(FileNotFoundError, match='nowhere.*give --images and --shape'):
        epoch_cost(configs(pipeline=FREE), rounds=1, warmup=1, images=8)
    free = epoch_cost(configs(pipeline=FREE), rounds=1, warmup=1, images=8, shape=(3, 40, 32), batch=2)
    assert free['settings']['shape'] == [3, 40, 32] and free['iterations'] == 4
    assert (
        'Batch 2 of 3x40x32 in all, as this is one process; the configs have 8 in each.' in remarks(free)[0]
    )


@pytest.mark.parametrize(
    'seconds, unit, shown', [(7200, 'h', '2.00'), (90, 'min', '1.50'), (59, 's', '59.00')]
)
def test_epochs_have_a_unit_that_suits(report, seconds, unit, shown, tmp_path):
    networks = {role: {**n, 'epoch_s': seconds} for role, n in report['networks'].items()}
    rows, ratios = tables({**report, 'networks': networks})
    assert {row[f'extrapolated epoch ({unit})'] for row in rows} == {shown}
    assert [r['ratio'] for r in ratios] == ['time, adaptive / (full + base)', 'memory, adaptive / full']
    assert 'extrapolated: 13 median steps for 100 images' in remarks(report)[1]


def test_report(report, tmp_path):
    write_report(report, tmp_path / 'new', configs={'adaptive': 'a.py'})
    written = json.loads((tmp_path / 'new' / 'epoch_cost.json').read_text())
    assert written == {'configs': {'adaptive': 'a.py'}, **report}
    text = (tmp_path / 'new' / 'epoch_cost.md').read_text()
    assert '| adaptive |' in text and 'extrapolated' in text
    assert (tmp_path / 'new' / 'epoch_cost.png').read_bytes().startswith(b'\x89PNG')
    assert len(list((tmp_path / 'new').iterdir())) == 3


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Runs the tool with the three tiny configs."""
    paths = []
    for role, cfg in configs().items():
        path = tmp_path / f'{role}.py'
        path.write_text('\n'.join(f'{name} = {pformat(value)}' for name, value in cfg.to_dict().items()))
        paths += [f'--{role}', path]

    def main(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', ['epoch_cost.py', *map(str, [*paths, *arguments])])
        runpy.run_path(str(ROOT / 'tools' / 'analysis' / 'epoch_cost.py'), run_name='__main__')

    return main


FEW = ['--rounds', 1, '--warmup', 1, '--threads', 1]


def test_tool(tool, tmp_path, capsys):
    options = ['--images', 12, '--clock', 'cpu', '--cfg-options', 'train_dataloader.batch_size=5']
    tool(*FEW, '--out', tmp_path / 'out', *options)
    written = json.loads((tmp_path / 'out' / 'epoch_cost.json').read_text())
    assert written['settings']['clock'] == 'cpu' and written['settings']['arch'] == 'adaptive'
    assert written['iterations'] == 3 and written['configs']['base'] == str(tmp_path / 'base.py')
    out = capsys.readouterr().out
    assert 'time, adaptive / (full + base)' in out and 'Batch 5 of 3x32x32 in all' in out
    assert out.rstrip().endswith(f'{tmp_path}/out/epoch_cost.{{json,md,png}}')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--full', 'configs/none.py'], 'configs/none.py'),
        (['--full', 'configs/demo/resnet50_adn_digits.py'], 'the full config trains by SelfDist'),
        ([], 'nowhere.*give --images and --shape'),
        (['--cfg-options', 'optim_wrapper.type=AmpOptimWrapper'], 'AmpOptimWrapper, which needs a GPU'),
        (['--images', '0'], 'images=0: give a whole number from 1 on'),
        (['--out', 'file/folder'], 'cannot write into .*file/folder'),
    ],
)
def test_tool_mistakes_get_one_line(tool, arguments, message, tmp_path):
    (tmp_path / 'file').write_text('a file')
    arguments = [tmp_path / a if a == 'file/folder' else a for a in arguments]
    out = [] if '--out' in arguments else ['--out', tmp_path / 'out']
    with pytest.raises(SystemExit) as end:
        tool(*FEW, *out, *arguments)
    assert re.match(f'error: .*{message}', end.value.code) and '\n' not in end.value.code
    assert not list(tmp_path.rglob('epoch_cost.*'))

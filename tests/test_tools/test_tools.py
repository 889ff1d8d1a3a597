"""The command lines as a user runs them."""

import json

import pytest
import torch
from scripts import run

from mmadn.checkpoint.published import published_names

CONFIG = 'configs/demo/resnet50_adn_digits.py'


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """The work dir of one epoch on few digits."""
    folder = tmp_path_factory.mktemp('trained')
    run('tools/train.py', CONFIG, '--work-dir', folder, *digits.small)
    return folder


def test_train_writes_a_checkpoint_and_the_metrics_of_both_ends(trained):
    checkpoint = torch.load(trained / 'epoch_1.pth', weights_only=False)
    assert 'backbone.layer1.0.bn1.skip.weight' in checkpoint['state_dict']
    scalars = [
        json.loads(line)
        for path in trained.glob('*/vis_data/*.json')
        for line in path.open()
        if line.startswith('{"')
    ]
    assert any('TTTT/accuracy/top1' in s and 'FFFF/accuracy/top1' in s for s in scalars)
    losses = [s for s in scalars if 'loss_super' in s]
    assert losses
    for s in losses:
        assert s['loss'] == pytest.approx(s['loss_super'] + s['loss_distill'], abs=1e-5)
        assert 'accuracy_top-1' in s


def test_train_resumes(trained, digits):
    done = run(
        'tools/train.py',
        CONFIG,
        '--work-dir',
        trained,
        '--resume',
        *digits.small,
        'train_cfg.max_epochs=2',
    )
    assert 'resumed epoch: 1' in done.stdout + done.stderr
    assert (trained / 'epoch_2.pth').exists()


def test_auto_scale_lr(digits, tmp_path):
    done = run(
        'tools/train.py',
        CONFIG,
        '--work-dir',
        tmp_path,
        '--auto-scale-lr',
        *digits.small,
        'train_dataloader.batch_size=16',
    )
    assert 'Scaling the original LR by 0.25' in done.stdout + done.stderr


@pytest.mark.parametrize('skip', ['TTFF', None])
def test_test(trained, digits, skip, tmp_path):
    chosen = ['--skip', skip] if skip else []
    done = run(
        'tools/test.py',
        CONFIG,
        trained / 'epoch_1.pth',
        '--work-dir',
        tmp_path,
        *chosen,
        *digits.small,
    )
    text = done.stdout + done.stderr
    for name in ['TTFF'] if skip else ['FFFF', 'TTTT']:
        assert f'{name}/accuracy/top1: ' in text
    assert ('FFFF/accuracy' in text) == (skip is None)


@pytest.mark.parametrize('skips', [[], ['base', 'TTFF']], ids=['all', 'some'])
def test_test_subnets(trained, digits, skips, tmp_path):
    chosen = ['--skips', *skips] if skips else []
    done = run(
        'tools/test_subnets.py',
        CONFIG,
        trained / 'epoch_1.pth',
        '--work-dir',
        tmp_path,
        *chosen,
        *digits.small,
    )
    data = json.loads((tmp_path / 'subnets.json').read_text())
    names = [row['skip'] for row in data['subnets']]
    assert names == ['TTTT', 'TTFF'] if skips else len(set(names)) == 16
    assert (tmp_path / 'subnets.md').exists() and (tmp_path / 'subnets.png').exists()
    assert 'MFLOPs' in done.stdout and 'TTFF' in done.stdout
    assert 'Epoch(test)' in done.stdout and 'System environment' not in done.stdout


def test_stock_checkpoint_is_tested_and_fine_tuned_as_an_adaptive_one(digits, tmp_path):
    run('tools/train.py', 'configs/demo/resnet50_digits.py', '--work-dir', tmp_path, *digits.small)
    stock = tmp_path / 'epoch_1.pth'
    options = ['--work-dir', tmp_path, '--skips', 'base', *digits.small]
    run('tools/test_subnets.py', CONFIG, stock, *options)
    assert json.loads((tmp_path / 'subnets.json').read_text())['subnets'][0]['skip'] == 'TTTT'
    config, tuned = 'configs/demo/resnet50_adn-finetune_digits.py', tmp_path / 'tuned'
    done = run('tools/train.py', config, '--work-dir', tuned, *digits.small, f'load_from={stock}')
    assert f'Load checkpoint from {stock}' in done.stdout
    before = torch.load(stock, weights_only=False)['state_dict']
    published = [
        'tools/convert_checkpoint.py',
        tuned / 'epoch_1.pth',
        tmp_path / 'p.pth',
        '--to',
        'published',
    ]
    done = run(*published, '--arch', 'resnet50', code=1)  # it is read; only its shapes are those of a digit
    assert 'has the shape' in done.stderr
    after = torch.load(tuned / 'epoch_1.pth', weights_only=False)['state_dict']
    name = 'backbone.layer1.0.conv1.weight'  # moved from where the stock network was, and not far
    assert 0 < (after[name] - before[name]).norm() < 0.5 * before[name].norm()


def test_convert_checkpoint(tmp_path):
    weights = {name: torch.zeros(tensor.shape) for name, (_, tensor) in published_names('resnet50').items()}
    torch.save(weights, tmp_path / 'src.pth')
    done = run(
        'tools/convert_checkpoint.py',
        tmp_path / 'src.pth',
        tmp_path / 'dst.pth',
        '--arch',
        'resnet50',
    )
    assert 'loads in the classifier of configs/adn/' in done.stdout
    back = ['tools/convert_checkpoint.py', tmp_path / 'dst.pth', tmp_path / 'back.pth', '--arch', 'resnet50']
    run(*back, '--to', 'published')
    assert torch.load(tmp_path / 'back.pth', weights_only=True).keys() == weights.keys()
    done = run(
        'tools/convert_checkpoint.py',
        tmp_path / 'src.pth',
        tmp_path / 'x.pth',
        '--arch',
        'resnet50vd',
        code=1,
    )
    assert 'error: these are not the weights of resnet50vd' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'x.pth').exists()
    done = run(
        'tools/convert_checkpoint.py',
        tmp_path / 'none.pth',
        tmp_path / 'x.pth',
        '--arch',
        'resnet50',
        code=1,
    )
    assert 'none.pth' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    'command, message',
    [
        (
            ['tools/train.py', 'configs/adn/resnet50_adn_in1k.py'],
            'with 1000 folders in train and in val',
        ),
        (['tools/train.py', 'configs/none.py'], 'configs/none.py'),
        (['tools/test.py', CONFIG, 'none.pth'], 'none.pth'),
        (['tools/test.py', CONFIG, 'none.pth', '--skip', 'TTX'], "skip='TTX': give 4 letters"),
        (
            ['tools/test_subnets.py', CONFIG, 'none.pth', '--skips', 'FF'],
            "skip='FF': give 4 letters",
        ),
    ],
    ids=['imagenet', 'config', 'checkpoint', 'skip', 'skips'],
)
def test_mistakes_get_one_line(command, message, digits, tmp_path):
    arguments = digits.small if CONFIG in command else ['--cfg-options', f'data_root={tmp_path}/imagenet']
    done = run(*command, '--work-dir', tmp_path / 'run', *arguments, code=1)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
    assert message in line
    assert 'Traceback' not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_amp_without_a_gpu_gets_one_line(digits, tmp_path):
    done = run('tools/train.py', CONFIG, '--amp', '--work-dir', tmp_path, *digits.small, code=2)
    assert '--amp needs a GPU' in done.stderr

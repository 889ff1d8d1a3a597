"""tools/calibrate_norms.py as a user runs it."""

import pytest
import torch
from scripts import run

CONFIG = 'configs/demo/resnet50_adn_digits.py'
TOOL = 'tools/calibrate_norms.py'


@pytest.fixture(scope='module')
def weights(digits, tmp_path_factory):
    """The checkpoint of one epoch on few digits, as training leaves it."""
    folder = tmp_path_factory.mktemp('trained')
    run('tools/train.py', CONFIG, '--work-dir', folder, *digits.small)
    checkpoint = torch.load(folder / 'epoch_1.pth', weights_only=False)
    state = checkpoint['state_dict']
    checkpoint['state_dict'] = {
        k: v for k, v in state.items() if not k.endswith(('_mean', '_var')) or 'running' in k
    }
    assert len(checkpoint['state_dict']) < len(state)  # the demo calibrates by itself
    torch.save(checkpoint, folder / 'plain.pth')
    return folder / 'plain.pth'


def test_a_calibrated_checkpoint_is_tested_as_any_other(weights, digits, tmp_path):
    out = tmp_path / 'calibrated.pth'
    done = run(TOOL, CONFIG, weights, out, '--images', 64, *digits.small)
    assert f'{out}: norms calibrated for all depths with 64 images' in ' '.join(done.stdout.split())
    state = torch.load(out, weights_only=False)['state_dict']
    assert 'backbone.layer4.0.downsample.1.full_mean' in state
    run('tools/test.py', CONFIG, out, '--skip', 'TFTF', '--work-dir', tmp_path / 'test', *digits.small)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('--images', 8), 'error: 8 images are too few to calibrate norms with: give 32 or more'),
        (('--cfg-options', 'data_root=absent'), 'error: '),
        (('--cfg-options', 'model.backbone.depth=101'), 'is not a checkpoint of the model in this config'),
    ],
    ids=['few', 'data', 'network'],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(weights, digits, tmp_path, arguments, message):
    out = tmp_path / 'calibrated.pth'
    options = (
        [*digits.small, *arguments[1:]] if arguments[0] == '--cfg-options' else [*arguments, *digits.small]
    )
    done = run(TOOL, CONFIG, weights, out, *options, code=1)
    lines = done.stderr.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith('error: ') and 'Traceback' not in done.stderr
    assert not out.exists()

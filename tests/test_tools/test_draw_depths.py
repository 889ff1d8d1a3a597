"""Detection as users do it, and the script that draws it."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.axes import Axes
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

CONFIG = ROOT / 'configs/demo/mask_rcnn_r50adn_shapes.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('draw_depths', ROOT / 'tools/draw_depths.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """The paths of the config and of the checkpoint of an untrained detector."""
    folder = tmp_path_factory.mktemp('detector')
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.update(base_channels=4, stem_channels=8)
    cfg.model.neck.in_channels = [16, 32, 64, 128]
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=3)
    cfg.dump(folder / 'config.py')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    meta = dict(dataset_meta=cfg.metainfo.to_dict())
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'weights.pth')
    return str(folder / 'config.py'), str(folder / 'weights.pth')


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / 'photograph.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    return str(path)


def test_inferencer_changes_its_depth(detector, photograph):
    model = init_detector(*detector, device='cpu')
    inferencer = DetInferencer(*detector, device='cpu', show_progress=False)
    scores = {}
    for skip in ('FFFF', 'TTTT', 'FFFF'):
        inferencer.model.backbone.set_skip(skip)
        (found,) = inferencer(photograph, no_save_vis=True)['predictions']
        model.backbone.set_skip(skip)
        expected = inference_detector(model, photograph).pred_instances
        assert found['scores'] == expected.scores.tolist()
        assert found['bboxes'] == expected.bboxes.tolist()
        assert scores.setdefault(skip, found['scores']) == found['scores'] != []
    assert scores['FFFF'] != scores['TTTT']


def test_draws_every_depth_of_every_image(tool, detector, photograph, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'new' / 'depths.png'
    titles = []
    monkeypatch.setattr(Axes, 'set_title', lambda axes, title: titles.append(title))
    skips = ['--skips', 'FFFF', 'base']
    arguments = [*detector, photograph, photograph, *skips, '--out', str(out), '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', ['draw_depths.py', *arguments, '--score-thr', '0.1'])
    tool.main()
    with Image.open(out) as picture:
        assert picture.size == (1500, 1215)
    assert [path.name for path in out.parent.iterdir()] == ['depths.png']
    assert [title[:4] for title in titles] == ['FFFF', 'TTTT'] * 2
    gflops = [float(title.split()[1]) for title in titles]
    assert gflops[0] > gflops[1]
    assert str(out) in capsys.readouterr().out


def test_draws_over_a_photograph_of_its_own(tool, detector, tmp_path, monkeypatch):
    out = tmp_path / 'depths.png'
    monkeypatch.setattr(sys, 'argv', ['draw_depths.py', *detector, '--skips', 'TTTT', '--out', str(out)])
    tool.main()
    with Image.open(out) as picture:
        assert len(picture.convert('RGB').getcolors(1 << 24)) > 1000


def test_drawn_boxes_are_where_they_were_found(tool, detector):
    model = init_detector(*detector, device='cpu')
    image = np.full((64, 64, 3), 255, np.uint8)
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 16:32, 16:32] = True
    found = dict(scores=torch.ones(1), labels=torch.tensor([2]), masks=masks)
    found['bboxes'] = torch.tensor([[16.0, 16.0, 32.0, 32.0]])
    result = DetDataSample(pred_instances=InstanceData(**found))
    picture = tool.drawn(image, result, model.dataset_meta, 0.5)
    assert picture.shape == (1024, 1024, 3)
    rows, columns = np.nonzero((picture != 255).any(2))
    assert 246 <= rows.min() <= 256 <= 511 <= rows.max() <= 522
    assert 246 <= columns.min() <= 256 <= 511 <= columns.max() <= 522
    assert result.pred_instances.bboxes.max() == 32  # the result itself is as it was


@pytest.mark.parametrize(
    'change, message',
    [
        ({1: 'missing.pth'}, 'missing.pth'),
        ({2: 'missing.png'}, 'missing.png'),
        ({2: __file__}, 'cannot be read as an image'),
        ({4: 'TTF'}, "skip='TTF'"),
        ({0: str(ROOT / 'configs/demo/mask_rcnn_r50_shapes.py')}, 'no adaptive depth'),
    ],
)
def test_mistakes_get_one_line(tool, detector, photograph, tmp_path, monkeypatch, change, message):
    arguments = [*detector, photograph, '--skips', 'FFFF', '--out', str(tmp_path / 'depths.png')]
    for position, argument in change.items():
        arguments[position] = argument
    monkeypatch.setattr(sys, 'argv', ['draw_depths.py', *arguments])
    with pytest.raises(SystemExit, match=message) as error:
        tool.main()
    assert str(error.value).startswith('error: ') and '\n' not in str(error.value)
    assert not (tmp_path / 'depths.png').exists()

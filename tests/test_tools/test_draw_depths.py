"""Detection as users do it, and the script that draws it."""

import importlib.util
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmadn.deploy.images import writing_video

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


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_draws_every_depth_of_every_image(tool, detector, photograph, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / 'folder', tmp_path / 'new'
    (folder / 'sub').mkdir(parents=True)
    for name in ('a.jpg', 'sub/a.png'):
        Image.open(photograph).save(folder / name)
    arguments = [*detector, photograph, str(folder), '--skips', 'FFFF', 'base', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', ['draw_depths.py', *arguments, '--score-thr', '0.1', '--device', 'cpu'])
    tool.main()
    pictures = ['photograph.png', 'a.png', 'sub/a.png']
    assert capsys.readouterr().out.splitlines()[-3:] == [str(out / name) for name in pictures]
    assert sorted(out.rglob('*.png')) == sorted(out / name for name in pictures)
    assert {size(out / name) for name in pictures} == {(2 * 512 + 8, 384 + 58)}


def test_draws_a_video_that_plays(tool, detector, tmp_path, monkeypatch):
    with writing_video(tmp_path / 'given.avi', 7) as write:
        for i in range(4):
            write(np.full((60, 80, 3), 60 * i, np.uint8))
    arguments = [*detector, str(tmp_path / 'given.avi'), '--out', str(tmp_path / 'new'), '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', ['draw_depths.py', *arguments])
    tool.main()
    video = mmcv.VideoReader(str(tmp_path / 'new' / 'given.mp4'))
    frames = list(video)
    assert len(frames) == 4 and video.fps == 7 and frames[0].shape == (384 + 58, 2 * 512 + 8, 3)
    shades = [frame[100:, :500].mean() for frame in frames]
    assert shades == sorted(shades) and shades[-1] > shades[0] + 100
    head = frames[0][:50]
    assert (head > 200).mean() > 0.8 and (head < 100).any()  # black on white


@pytest.mark.parametrize(
    'change, message',
    [
        ({1: 'missing.pth'}, 'missing.pth'),
        ({2: 'missing.png'}, 'missing.png'),
        ({2: __file__}, 'is no video that OpenCV reads'),
        ({2: str(Path(__file__).parent)}, 'has no images'),
        ({3: 'photograph.png'}, 'would both be drawn into'),
        ({4: 'TTF'}, "skip='TTF'"),
        ({0: str(ROOT / 'configs/demo/mask_rcnn_r50_shapes.py')}, 'not a checkpoint of the model'),
    ],
)
def test_mistakes_get_one_line(tool, detector, photograph, tmp_path, monkeypatch, change, message):
    arguments = [*detector, photograph, '--skips', 'FFFF', '--out', str(tmp_path / 'depths')]
    for position, argument in change.items():
        arguments[position] = argument
    monkeypatch.setattr(sys, 'argv', ['draw_depths.py', *arguments])
    with pytest.raises(SystemExit, match=message) as error:
        tool.main()
    assert str(error.value).startswith('error: ') and '\n' not in str(error.value)
    assert not list(tmp_path.rglob('depths*/*'))

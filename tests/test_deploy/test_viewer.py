"""Pictures and videos of what is found at several depths."""

import copy

import cv2
import detectors
import numpy as np
import pytest
import torch
import toy
from mmdet.apis import inference_detector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmpretrain import ImageClassificationInferencer

from mmadn.deploy.images import write_image, writing_video
from mmadn.deploy.viewer import LEAST, MOST, Sight, Viewer
from mmadn.utils.report import CLASS_COLOURS

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]


def classifier(**dataset):
    cfg = Config(dict(default_scope='mmpretrain', model=toy.model_cfg()))
    cfg.test_dataloader = dict(dataset=dict(type='mmadn.ImageFolder', pipeline=PIPELINE, **dataset))
    return toy.build().eval(), cfg


@pytest.fixture(scope='module')
def detector():
    """An untrained Mask R-CNN that finds at most three things, and its config."""
    cfg = detectors.config('mask_rcnn')
    model = detectors.build('mask_rcnn').eval()
    model.roi_head.test_cfg.update(score_thr=0.0, max_per_img=3)
    model.cfg = cfg  # for mmdet's own inference
    return model, cfg


def noise(height=60, width=80):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_detector_sees_what_mmdet_finds(detector):
    model, cfg = detector
    viewer = Viewer(model, cfg, score_thr=0.0)
    sights = viewer.see(noise(), ['FFFF', 'base', 'FFFF'], rounds=2)
    assert [sight.skip for sight in sights] == ['FFFF', 'TTTT', 'FFFF'] and model.backbone.skip == 'FFFF'
    assert sights[0].unit == sights[1].unit
    assert sights[0].gflops > sights[1].gflops > 0 and all(sight.latency_ms > 0 for sight in sights)
    init_default_scope('mmdet')
    for sight in sights:
        with model.backbone.skipping(sight.skip):
            expected = inference_detector(model, noise()).pred_instances
        assert len(expected) and torch.equal(sight.sample.pred_instances.bboxes, expected.bboxes)
    assert not torch.equal(
        sights[0].sample.pred_instances.scores, sights[1].sample.pred_instances.scores
    )  # each depth has a sample of its own


def test_a_segmentor_sees_what_mmseg_finds_and_paints_it():
    pytest.importorskip('mmseg')
    import segmentors
    from mmseg.apis import inference_model

    palette = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
    meta = dict(classes=list('abcd'), palette=palette)
    steps = [dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')]
    cfg = Config(dict(default_scope='mmseg', model=segmentors.config()))
    cfg.test_dataloader = dict(dataset=dict(type='BaseSegDataset', pipeline=steps, metainfo=meta))
    cfg.test_pipeline = steps
    model = segmentors.build().eval()
    model.cfg, viewer = cfg, Viewer(model, cfg)
    (sight,) = viewer.see(noise(64, 96), ['TTFF'])
    found = sight.sample.pred_sem_seg.data
    assert torch.equal(found, inference_model(model, noise(64, 96)).pred_sem_seg.data)
    shares = {'abcd'[label]: round(100 * float((found == label).float().mean())) for label in found.unique()}
    assert len(shares) > 1
    said = dict(each.rsplit(' ', 1) for each in viewer.summary(sight.sample).split(', '))
    assert said == {name: f'{share}%' for name, share in shares.items() if share}
    assert viewer.panel(noise(64, 96), sight).shape[1] == LEAST

    left = torch.zeros(1, 64, 96, dtype=torch.long)
    left[..., 48:] = 2
    sight.sample.pred_sem_seg.data = left
    picture = viewer.drawn(np.zeros((64, 96, 3), np.uint8), sight.sample)
    assert (picture[5, 5] == [127, 0, 0]).all() and (picture[5, -5] == [0, 0, 127]).all()


def test_a_classifier_sees_what_mmpretrain_finds(tmp_path):
    model, cfg = classifier(metainfo=dict(classes=list('abcde')))
    viewer = Viewer(model, cfg)
    image = noise(32, 32)
    write_image(tmp_path / 'new' / 'image.png', image[..., ::-1])
    for sight in viewer.see(image, ['FFFF', 'TTTT']):
        model._config = cfg  # for mmpretrain's own inference
        inferencer = ImageClassificationInferencer(model, classes=list('abcde'))
        model.backbone.set_skip(sight.skip)
        (expected,) = inferencer(str(tmp_path / 'new' / 'image.png'))
        scores = viewer.scores(sight.sample)
        assert next(iter(scores)) == expected['pred_class'] and sum(scores.values()) == pytest.approx(1)
        assert next(iter(scores.values())) == pytest.approx(expected['pred_score'])
        assert viewer.summary(sight.sample).startswith(f'{expected["pred_class"]}: ')


@pytest.mark.parametrize('meta, name', [(None, 'class 2'), (dict(classes=('x', 'y', 'z')), 'z')])
def test_the_names_of_classes(meta, name):
    model, cfg = classifier()
    model.dataset_meta = meta  # of the checkpoint
    assert Viewer(model, cfg)._name(2) == name


def test_the_names_of_coco_come_from_its_data_set(detector):
    model, cfg = detector
    cfg = copy.deepcopy(cfg)
    del cfg.test_dataloader.dataset['metainfo']
    assert Viewer(model, cfg)._name(60) == 'dining table'


def found(*boxes, size=64, **fields):
    """A detector's result in an image of that size, of classes 0, 1, ..."""
    n = len(boxes)
    instances = InstanceData(
        bboxes=torch.tensor(boxes), scores=torch.ones(n), labels=torch.arange(n), **fields
    )
    return DetDataSample(pred_instances=instances, metainfo=dict(ori_shape=(size, size)))


@pytest.mark.parametrize('side, drawn', [(64, LEAST), (600, 600), (2000, MOST)])
def test_boxes_are_drawn_where_they_were_found(side, drawn, detector):
    viewer, unit = Viewer(*detector), drawn / 4
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 16:32, 16:32] = True
    sample = found([16.0, 16.0, 32.0, 32.0], masks=masks)  # of the image at 64 pixels, whatever its own size
    picture = viewer.drawn(np.full((side, side, 3), 255, np.uint8), sample)
    assert picture.shape == (drawn, drawn, 3)
    rows, columns = np.nonzero((picture != 255).any(2))
    label = 1.4 * drawn / 36  # above the box
    assert unit - label - 2 <= rows.min() <= unit <= 2 * unit - 4 <= rows.max() <= 2 * unit + 4
    assert unit - 4 <= columns.min() <= unit <= 2 * unit - 4 <= columns.max() <= 2 * unit + 4
    assert sample.pred_instances.bboxes.max() == 32  # the result itself is as it was


def test_classes_have_colours_of_their_own_and_labels_stay_in_the_picture(detector):
    viewer, white = Viewer(*detector), np.full((64, 64, 3), 255, np.uint8)
    assert len(set(CLASS_COLOURS)) == 7
    boxes = [[4.0, 0.0, 28.0, 30.0], [36.0, 34.0, 60.0, 64.0]]
    picture = viewer.drawn(white, found(*boxes)).reshape(-1, 3)
    for colour in CLASS_COLOURS[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (abs(picture.astype(int) - rgb).sum(1) < 6).sum() > 500
    assert viewer.drawn(white, found([0.0, 0.0, 64.0, 64.0])).shape == (LEAST, LEAST, 3)


def test_what_scores_too_little_is_left_out(detector):
    viewer, sample = Viewer(*detector, score_thr=0.5), found([0.0, 0.0, 9.0, 9.0], [9.0, 9.0, 20.0, 20.0])
    assert viewer.summary(sample) == 'found: 1 circle, 1 square'
    sample.pred_instances.scores = torch.tensor([0.4, 0.5])
    assert viewer.summary(sample) == 'nothing found'
    assert (viewer.drawn(np.full((64, 64, 3), 255, np.uint8), sample) == 255).all()


def test_panels_stand_four_in_a_row_with_their_cost_above():
    model, cfg = classifier()
    viewer = Viewer(model, cfg)
    (sight,) = viewer.see(noise(), ['FFFF'])
    panel = viewer.panel(noise(), sight)
    head = panel.shape[0] - 384
    assert panel.shape[1] == 512 and 40 < head < 80 and head % 2 == 0
    assert (panel[:head] < 100).any() and np.array_equal(panel[head:], viewer.drawn(noise(), sight.sample))
    assert sight.cost.startswith('FFFF   ') and sight.cost.rstrip().endswith(' MFLOPs')
    sight = Sight('FT', 1234.5, 4.1, (1.0, 'GFLOPs'), None, 'over 9 ms')
    assert sight.cost == 'FT   1234 ms   4.10 GFLOPs   over 9 ms'
    assert sight._replace(gflops=0.00578, unit=(1e3, 'MFLOPs')).flops == '5.78 MFLOPs'
    many = viewer.compare(noise(), viewer.depth.subnets()[:5])
    assert many.shape == (2 * panel.shape[0], 4 * 512 + 3 * 8, 3)


def test_a_video_can_be_read_back(tmp_path):
    with writing_video(tmp_path / 'new' / 'video.mp4', 12.5) as write:
        for i in range(5):
            write(np.full((48, 64, 3), (50 * i, 0, 0), np.uint8))  # red
    video = cv2.VideoCapture(str(tmp_path / 'new' / 'video.mp4'))
    frames = []
    while (frame := video.read())[0]:
        frames.append(frame[1])
    assert len(frames) == 5 and frames[0].shape == (48, 64, 3) and video.get(cv2.CAP_PROP_FPS) == 12.5
    assert [round(frame[..., 2].mean() / 50) for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame[..., 0].mean() < 10 for frame in frames)
    with pytest.raises(KeyError), writing_video(tmp_path / 'broken.mp4', 10) as write:
        write(np.zeros((48, 64, 3), np.uint8))
        raise KeyError
    with pytest.raises(RuntimeError, match='cannot write .*video.txt'):
        with writing_video(tmp_path / 'video.txt', 10) as write:
            write(np.zeros((48, 64, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ['new']


def test_a_network_without_adaptive_depth_is_refused():
    model, cfg = classifier()
    model.backbone = torch.nn.Identity()
    with pytest.raises(TypeError, match='no adaptive depth'):
        Viewer(model, cfg)


def test_a_config_without_test_data_is_refused():
    model, cfg = classifier()
    cfg.test_dataloader = None
    with pytest.raises(ValueError, match='no test_dataloader'):
        Viewer(model, cfg)

"""Files that predict in place of a model, as tools/test_subnets.py tests them."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
import toy

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402

from mmadn.deploy import AdaptiveSession, export_onnx  # noqa: E402
from mmadn.deploy.onnx.pasting import stretch  # noqa: E402
from mmadn.deploy.onnx.testing import ExportedFile  # noqa: E402

SMALL = dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,), base_channels=4)


def classifier():
    cfg = toy.model_cfg(backbone=SMALL)
    cfg['head'].update(in_channels=8)
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


def test_a_classifier(tmp_path):
    model, data = classifier(), toy.batch(4)
    export_onnx(model, tmp_path / 'net.onnx', (3, 32, 32), adaptive=True)
    expected = {}
    with torch.no_grad():
        for skip in model.backbone.subnets():
            with model.backbone.skipping(skip):
                expected[skip] = torch.stack([s.pred_score for s in model.test_step(data)])
        for parameter in model.parameters():
            parameter.zero_()
        file = ExportedFile(tmp_path / 'net.onnx')
        assert file.depths('all') == 'all' and file.depths(['TT']) == ['TT']
        with file.predicting(model):
            for skip, scores in expected.items():
                with model.backbone.skipping(skip):
                    found = torch.stack([s.pred_score for s in model.test_step(data)])
                torch.testing.assert_close(found, scores)
        assert (model.test_step(data)[0].pred_score == 0.2).all()  # itself, without weights
    assert len({tuple(scores.flatten().tolist()) for scores in expected.values()}) == 4


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    """A tiny PSPNet, its config, and its adaptive file."""
    pytest.importorskip('mmseg')
    import segmentors

    model = segmentors.build().eval()
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 64), keep_ratio=True),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    metainfo = dict(classes=list('abcd'))
    cfg = Config(dict(default_scope='mmseg', model=segmentors.config(), test_pipeline=steps))
    cfg.test_dataloader = dict(dataset=dict(type='BaseSegDataset', pipeline=steps, metainfo=metainfo))
    model.cfg, model.dataset_meta = cfg, metainfo
    path = tmp_path_factory.mktemp('onnx') / 'net.onnx'
    export_onnx(model, path, (3, 64, 96), adaptive=True, cfg=cfg)
    return model, path


def test_a_segmentor(segmentor):
    model, path = segmentor
    wide = torch.randint(256, (3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = dict(inputs=[wide, wide.flip(2)])
    file = ExportedFile(path)
    assert file.about['output'] == 'logits of pixels'
    with model.backbone.skipping('TTFF'):
        expected = [sample.seg_logits.data for sample in model.test_step(data)]
        with patch.object(model.decode_head.conv_seg, 'forward', None), file.predicting(model):
            found = [sample.seg_logits.data for sample in model.test_step(data)]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_session_gives_the_labels_that_mmseg_gives(segmentor):
    from mmseg.apis import inference_model

    model, path = segmentor
    session = AdaptiveSession(path)
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    image[:40, :60] //= 4
    for skip in ('FFFF', 'TTFF'):
        found = session(image, skip)
        with model.backbone.skipping(skip), DefaultScope.overwrite_default_scope('mmseg'):
            expected = inference_model(model, image).pred_sem_seg.data[0].numpy()
        assert found['names'] == list('abcd') and found['labels'].shape == (80, 120)
        assert len(np.unique(expected)) > 1 and (found['labels'] == expected).mean() > 0.999


def test_a_file_of_one_depth(tmp_path):
    model, data = classifier(), toy.batch(4)
    export_onnx(model, tmp_path / 'net.onnx', (3, 32, 32), skip='TF')
    file = ExportedFile(tmp_path / 'net.onnx')
    assert file.depths('all') == ['TF']
    with file.predicting(model):
        with pytest.raises(ValueError, match='has the depth TF alone; leave --skips'):
            model.test_step(data)
        with model.backbone.skipping('TF'):
            assert len(model.test_step(data)) == 4


@pytest.mark.parametrize('size', [(5, 9), (40, 30), (13, 7)])
def test_maps_are_resized_as_torch_does_it(size):
    maps = torch.randn(2, 13, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(maps[None], size=size, mode='bilinear')[0]
    np.testing.assert_allclose(stretch(maps.numpy(), *size), expected.numpy(), atol=1e-5)


def test_feature_maps_of_a_segmentor(tmp_path):
    pytest.importorskip('mmseg')
    import segmentors

    model = segmentors.build()
    head = model.decode_head
    export_onnx(model, tmp_path / 'net.onnx', (3, 64, 64), skip='TTTT', dynamic=False, features=True)
    assert model.decode_head is head
    with pytest.raises(ValueError, match='gives feature maps, which no metric takes; export a whole network'):
        ExportedFile(tmp_path / 'net.onnx')


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / 'net.onnx'
    export_onnx(classifier(), path, (3, 32, 32), adaptive=True, dynamic=False)
    file = ExportedFile(path)
    with pytest.raises(ValueError, match='has 2 flags of depth, and the model of the config has 4'):
        file.check(toy.build())
    other = torch.nn.Module()
    other.backbone = classifier().backbone
    with pytest.raises(ValueError, match='gives logits, and the config has a Module: give the config'):
        file.check(other)
    with pytest.raises(ValueError, match=r'cannot take images of shape \(1, 3, 40, 40\) .*; export it for'):
        file.run(classifier(), torch.from_numpy(np.zeros((1, 3, 40, 40), np.float32)))

import contextlib
import filecmp
import io
import json

import numpy as np
import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmadn import cli
from projects.paper import shapes

COUNTS = dict(train=60, val=20, test=20)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    shapes.write_shapes(folder, **COUNTS)
    return folder


@pytest.fixture(params=COUNTS)
def coco(root, request):
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(root / 'annotations' / f'{request.param}.json')
    data.folder = root / request.param
    return data


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_images_and_classes(coco):
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == ['circle', 'square', 'triangle', 'star']
    assert len(coco.imgs) == COUNTS[coco.folder.name] == len(files(coco.folder))
    for image in coco.imgs.values():
        with Image.open(coco.folder / image['file_name']) as picture:
            assert (picture.size, picture.mode) == ((image['width'], image['height']), 'RGB')
    assert {a['category_id'] for a in coco.anns.values()} == set(coco.getCatIds())
    assert {2, 3, 4} < {len(coco.imgToAnns[i]) for i in coco.imgs} < set(range(8))


def test_boxes_and_areas_are_those_of_the_masks(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert annotation['bbox'] == box and annotation['area'] == mask.sum() > 0


def test_masks_are_where_the_shapes_are_seen(coco):
    """No pixel belongs to two shapes, and each shape is of one colour, but for the noise."""
    for image, annotations in coco.imgToAnns.items():
        pixels = np.asarray(Image.open(coco.folder / coco.imgs[image]['file_name'])).astype(float)
        masks = np.stack([coco.annToMask(a).astype(bool) for a in annotations])
        assert masks.sum(0).max() == 1
        for mask in masks:
            assert (pixels[mask].std(0) < 8).all()


def test_some_images_are_empty_and_some_shapes_are_covered(root):
    data = json.loads((root / 'annotations' / 'train.json').read_text())
    empty = {i['id'] for i in data['images']} - {a['image_id'] for a in data['annotations']}
    assert 0 < len(empty) < 0.2 * COUNTS['train']
    rng = np.random.default_rng(0)
    photographs = shapes.load_photographs()
    drawn = [objects for _ in range(30) for _, objects in [shapes.draw(rng, photographs)]]
    squares = [mask for objects in drawn for label, mask in objects if shapes.CLASSES[label] == 'square']
    filled = [mask.sum() / (np.ptp(np.nonzero(mask), axis=1) + 1).prod() for mask in squares]
    assert min(filled) < 0.55 < max(filled)  # a whole square fills more, at any of the rotations


def test_mmdet_trains_on_all_of_it(root):
    cfg = Config.fromfile(ROOT / 'configs/demo/mask_rcnn_r50adn_shapes.py')
    cli.merge_options(cfg, {'data_root': str(root)})
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == shapes.CLASSES and len(dataset) == COUNTS['train']
    annotations = json.loads((root / 'annotations' / 'train.json').read_text())['annotations']
    for i in range(10):
        found = dataset[i]['data_samples'].gt_instances
        expected = [a for a in annotations if a['image_id'] == i + 1]
        assert (found.labels + 1).tolist() == [a['category_id'] for a in expected]
        assert [mask.sum() for mask in found.masks.masks] == [a['area'] for a in expected]


def test_labels_of_pixels_are_the_masks(root):
    found = json.loads((root / 'annotations' / 'train.json').read_text())
    for image in found['images']:
        labels = np.asarray(Image.open(root / 'labels' / 'train' / image['file_name'])).copy()
        for annotation in found['annotations']:
            if annotation['image_id'] == image['id']:
                mask = rle.decode(annotation['segmentation']).astype(bool)
                assert (labels[mask] == annotation['category_id']).all()
                labels[mask] = 0
        assert not labels.any()


def test_the_same_bytes_each_time_and_others_by_another_seed(root, tmp_path):
    few = dict(train=3, val=2, test=0)
    for name, seed in (('first', 0), ('again', 0), ('other', 1)):
        shapes.write_shapes(tmp_path / name, **few, seed=seed)
    names = files(tmp_path / 'first')
    assert len(names) == 2 * (3 + 2) + 3 and files(tmp_path / 'again') == names
    assert filecmp.cmpfiles(tmp_path / 'first', tmp_path / 'again', names, shallow=False)[0] == names
    pictures = [name for name in names if name.endswith('.png')]
    assert filecmp.cmpfiles(tmp_path / 'first', tmp_path / 'other', pictures, shallow=False)[1] == pictures
    # An image does not depend on how many there are.
    assert filecmp.cmpfiles(tmp_path / 'first', root, pictures, shallow=False)[0] == pictures


def test_splits_share_no_background():
    photograph = np.arange(1000 * 3).reshape(1, 1000, 3)
    parts = [set(shapes._part(photograph, *span)[0, :, 0]) for span in shapes.SPLITS.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1000
    for part in shapes.SPLITS.values():
        for photograph in shapes.load_photographs():
            assert min(shapes._part(photograph, *part).shape[:2]) >= shapes.SIZE


def test_written_once(root, monkeypatch, capsys):
    monkeypatch.setattr(shapes, 'draw', None)
    shapes.write_shapes(root, **COUNTS)
    assert capsys.readouterr().out == ''


def test_nothing_stays_of_half_a_data_set(tmp_path, monkeypatch):
    drawn = iter([shapes.draw(np.random.default_rng(0), shapes.load_photographs())])
    monkeypatch.setattr(shapes, 'draw', lambda *args: next(drawn))
    with pytest.raises(StopIteration):
        shapes.write_shapes(tmp_path / 'shapes', train=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', shapes.CLASSES)
def test_outlines_fit_the_unit_circle(name):
    for rotation in (0, 0.3):
        radius = np.linalg.norm(shapes.outline(name, rotation), axis=1)
        assert radius.max() == pytest.approx(1)
    assert not np.allclose(shapes.outline(name, 0), shapes.outline(name, 0.3))

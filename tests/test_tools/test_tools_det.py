"""The command lines on a detector as a user runs them, and what they say of bad data."""

import json
import shutil

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope
from scripts import kill_when, run

from projects.paper.shapes import write_shapes

CONFIG = 'configs/demo/retinanet_r50adn_shapes.py'
MASK = 'configs/demo/mask_rcnn_r50adn_shapes.py'
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes') / 'data'
    write_shapes(root, train=16, val=3, test=3)
    return root


def options(root, epochs=1):
    splits = ('train', 'val', 'test')
    return [
        '--cfg-options',
        f'data_root={root}',
        f'train_cfg.max_epochs={epochs}',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.logger.interval=1',
        'model.backbone.base_channels=4',
        'model.backbone.stem_channels=4',
        'model.neck.in_channels=16,32,64,128',
        'train_dataloader.batch_size=4',
        *(f'{split}_dataloader.num_workers=0' for split in splits),
        *(f'{split}_dataloader.persistent_workers=False' for split in splits),
    ]


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """A work dir whose training was killed after its first epoch, then resumed; and the resuming's log."""
    folder = tmp_path_factory.mktemp('trained')
    command = ['tools/train.py', MASK, '--work-dir', str(folder)]
    kill_when((folder / 'last_checkpoint').exists, *command, *options(shapes, 50))
    done = int((folder / 'last_checkpoint').read_text().rpartition('epoch_')[2].removesuffix('.pth'))
    log = run(*command, '--resume', *options(shapes, done + 1))
    return folder, done, log.stdout + log.stderr


def test_a_killed_training_resumes_and_completes(trained):
    folder, done, log = trained
    assert f'resumed epoch: {done}' in log
    state = torch.load(folder / f'epoch_{done + 1}.pth', weights_only=False)
    assert state['meta']['epoch'] == done + 1
    assert all(torch.isfinite(v).all() for v in state['state_dict'].values() if v.is_floating_point())
    scalars = [
        json.loads(line)
        for path in folder.glob('*/vis_data/*.json')
        for line in path.open()
        if line.startswith('{"')
    ]
    assert any({'FFFF/coco/bbox_mAP', 'TTTT/coco/segm_mAP'} <= set(s) for s in scalars)
    losses = [s for s in scalars if 'loss_super' in s]
    assert losses and all({'loss_base', 'loss_distill', 'loss_mask'} <= set(s) for s in losses)


def checkpoint(trained):
    folder, done, _ = trained
    return folder / f'epoch_{done + 1}.pth'


def test_depths_are_tested_in_one_go(trained, shapes, tmp_path):
    some = ['FFFF', 'TFFT', 'TTTT']
    command = ['tools/test_subnets.py', MASK, checkpoint(trained), '--work-dir', tmp_path, '--skips', *some]
    out = run(*command, *options(shapes)).stdout
    rows = json.loads((tmp_path / 'subnets.json').read_text())['subnets']
    assert [row['skip'] for row in rows] == some
    for row in rows:
        assert {'coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP_50', 'gflops', 'latency_ms'} <= set(row)
        assert row['latency_ms'] > 0
    assert rows[0]['gflops'] > rows[1]['gflops'] > rows[2]['gflops']
    table = (tmp_path / 'subnets.md').read_text()
    assert 'box AP' in table and 'mask AP' in table and 'bbox_mAP_50' not in table
    assert (tmp_path / 'subnets.png').exists() and 'TFFT' in out
    out = run(
        'tools/test.py', MASK, checkpoint(trained), '--work-dir', tmp_path, '--skip', 'TFFT', *options(shapes)
    )
    assert f'TFFT/coco/bbox_mAP: {rows[1]["coco/bbox_mAP"]:.4f}' in out.stdout + out.stderr


def test_a_checkpoint_of_another_detector_is_refused(trained, shapes, tmp_path):
    command = ['tools/test.py', CONFIG, checkpoint(trained), '--work-dir', tmp_path]
    done = run(*command, *options(shapes), code=1)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
    assert 'is not a checkpoint of the model in this config' in line and 'roi_head' in line


def test_missing_data_are_named_before_anything_begins(tmp_path):
    coco = 'configs/det/mask_rcnn_r50adn_coco.py'
    done = run('tools/train.py', coco, '--work-dir', tmp_path, '--cfg-options', 'data_root=/nowhere', code=1)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
    for path in (
        'annotations/instances_train2017.json',
        'train2017',
        'annotations/instances_val2017.json',
        'val2017',
    ):
        assert f'/nowhere/{path}' in line
    assert 'README.md' in line
    assert not list(tmp_path.glob('**/*.log'))


@pytest.fixture
def edited(shapes, tmp_path):
    """`edited(change)` copies the data and lets `change` edit the training annotations."""

    def edit(change):
        root = tmp_path / 'edited'
        shutil.copytree(shapes, root)
        path = root / 'annotations/train.json'
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        return root

    return edit


def dataset(root):
    init_default_scope('mmdet')
    return CocoDataset(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train'),
        metainfo=dict(classes=('circle', 'square', 'triangle', 'star')),
        pipeline=PIPELINE,
    )


def objects(data):
    return [len(data.get_data_info(i)['instances']) for i in range(16)]


def first(data):
    """The image of the first annotation, as its place in the file, which is that in the data set."""
    return data['annotations'][0]['image_id'] - 1


@pytest.mark.parametrize('kind', ['unknown category', 'no area', 'no width'])
def test_annotations_that_mmdet_leaves_out(kind, shapes, edited):
    """As its CocoDataset documents: the others stay, and so do their labels."""

    def change(data):
        annotation = data['annotations'][0]
        if kind == 'unknown category':
            annotation['category_id'] = 77
        elif kind == 'no area':
            annotation['area'] = 0
        else:
            annotation['bbox'][2] = 0

    stock, root = dataset(shapes), edited(change)
    left, expected = dataset(root), objects(stock)
    index = first(json.loads((root / 'annotations/train.json').read_text()))
    expected[index] -= 1
    assert objects(left) == expected
    labels = left[index]['data_samples'].gt_instances.labels
    assert labels.tolist() == stock[index]['data_samples'].gt_instances.labels.tolist()[1:]


def test_a_file_without_the_configs_categories_is_refused(edited, tmp_path):
    root = edited(lambda data: data['categories'].pop())
    done = run('tools/train.py', CONFIG, '--work-dir', tmp_path / 'run', *options(root), code=1)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
    assert 'train.json has 3 of the 4 categories circle, square, triangle, star' in line
    assert 'its own are circle, square, triangle:' in line
    assert 'metainfo=dict(classes=' in line


def test_an_image_that_cannot_be_read_stops_with_its_name(shapes, edited):
    root = edited(lambda data: None)
    (root / 'train/0003.png').write_bytes((shapes / 'train/0003.png').read_bytes()[:20])
    with pytest.raises(Exception, match='0003.png'):
        dataset(root)[3]
    (root / 'train/0003.png').unlink()
    with pytest.raises(FileNotFoundError, match='0003.png'):
        dataset(root)[3]

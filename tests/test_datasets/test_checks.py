"""What is said of data before a training."""

import json
from types import SimpleNamespace

import pytest
import toy
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmadn.cli import plain_errors
from mmadn.datasets import ImageFolder
from mmadn.datasets.checks import check_coco, check_loops, check_weights, name_unreadable_images
from mmadn.engine.training import FrozenNormsCheck


def test_a_head_of_another_size_is_named(tmp_path):
    model = toy.model_cfg()
    model['head']['num_classes'] = 7
    with pytest.raises(ValueError, match='model.head has num_classes=7, and the train data have 5 classes'):
        check_loops(toy.runner(tmp_path, model=model), ('train', 'val'))


def test_a_backbone_without_a_classifier_is_none(tmp_path):
    runner = toy.runner(tmp_path)
    runner.model.backbone.num_classes = -1  # as VGG says it
    check_loops(runner, ('train', 'val'))


def test_more_guesses_than_classes_are_refused(tmp_path):
    runner = toy.runner(tmp_path, val_evaluator=dict(type='Accuracy', topk=(1, 6)))
    with pytest.raises(ValueError, match=r'val_evaluator has topk=\(1, 6\), and there are 5 classes'):
        check_loops(runner, ('train', 'val'))


def folders(root, split, **kwargs):
    return dict(type='mmadn.ImageFolder', data_root=str(root), data_prefix=split, **kwargs)


def test_other_classes_in_validation_are_named(tmp_path):
    toy.write_images(tmp_path / 'train', 'abcde')
    toy.write_images(tmp_path / 'val', 'abcdx')
    loaders = {
        f'{split}_dataloader': dict(
            batch_size=2,
            num_workers=0,
            dataset=folders(tmp_path, split),
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        for split in ('train', 'val')
    }
    with pytest.raises(
        ValueError, match='validation data: other classes than the training .*without e and with x'
    ):
        check_loops(toy.runner(tmp_path / 'run', **loaders), ('train', 'val'))


def test_folders_are_those_that_the_config_names(tmp_path):
    toy.write_images(tmp_path / 'val', ('cat', 'dgo'))
    arguments = dict(data_root=str(tmp_path), data_prefix='val')
    assert ImageFolder(metainfo=dict(classes=('cat', 'dgo')), **arguments).metainfo['classes'] == (
        'cat',
        'dgo',
    )
    for classes in (('cat', 'dog'), ('dgo', 'cat')):
        with pytest.raises(ValueError, match='dog|another order'):
            ImageFolder(metainfo=dict(classes=classes), **arguments)


@pytest.mark.parametrize(
    'content, workers',
    [(b'', 0), (b'no image', 0), (None, 0), (b'no image', 1)],
    ids=['empty', 'text', 'cut', 'in a worker'],
)
def test_an_image_that_cannot_be_read_is_one_line(tmp_path, content, workers):
    toy.write_images(tmp_path / 'train')
    path = tmp_path / 'train/dog/1.JPEG'
    path.write_bytes(path.read_bytes()[:30] if content is None else content)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    data = ImageFolder(data_root=str(tmp_path), data_prefix='train', pipeline=pipeline)
    name_unreadable_images(data)
    with pytest.raises(SystemExit) as ended, plain_errors():
        list(DataLoader(data, num_workers=workers, collate_fn=list))
    assert ended.value.code == f'error: {path} cannot be read as an image; replace or remove it'


def test_another_fault_of_a_pipeline_stays_what_it_is(tmp_path):
    toy.write_images(tmp_path / 'train')
    pipeline = [dict(type='LoadImageFromFile', imdecode_backend='cv2'), dict(type='Resize', scale=8)]
    data = ImageFolder(data_root=str(tmp_path), data_prefix='train', pipeline=pipeline)
    data.pipeline.transforms[1] = lambda results: [][0]
    name_unreadable_images(data)
    with pytest.raises(IndexError):
        data[0]


@pytest.mark.parametrize(
    'classes, message',
    [(('dog', 'cat'), 'in another order the 2 categories dog, cat; its own are cat, dog'), (('cat',), None)],
    ids=['order', 'fewer'],
)
def test_categories_that_are_not_the_classes_are_named(tmp_path, classes, message):
    categories = [dict(id=7, name='cat'), dict(id=9, name='dog')]
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    found = [
        each['id'] for each in categories if each['name'] in classes
    ]  # as mmdet does, in the file's order
    data = SimpleNamespace(cat_ids=found, metainfo=dict(classes=classes), METAINFO={}, ann_file=str(path))
    if message is None:
        return check_coco(data)
    with pytest.raises(ValueError, match=message):
        check_coco(data)


def pretrained(**settings):
    init = dict(type='Pretrained', checkpoint='checkpoints/absent.pth')
    return Config(dict(model=dict(backbone=dict(type='A', init_cfg=init)), **settings))


def test_inherited_weights_are_not_read_where_the_whole_model_is_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match='starts from are not there: checkpoints/absent'):
        check_weights(pretrained())
    (tmp_path / 'whole.pth').touch()
    for settings in (dict(load_from=str(tmp_path / 'whole.pth')), dict(resume=True)):
        cfg = pretrained(**settings)
        check_weights(cfg)
        assert cfg.model.backbone.init_cfg is None
    with pytest.raises(FileNotFoundError, match='no checkpoint none.pth'):
        check_weights(pretrained(load_from='none.pth'))


def test_frozen_norms_of_an_untrained_network_are_refused(tmp_path):
    model = toy.model_cfg(backbone=dict(norm_eval=True))
    runner = toy.runner(tmp_path, model=model)
    with pytest.raises(ValueError, match='frozen with the statistics of an untrained network'):
        FrozenNormsCheck().before_train(runner)
    for norm in (m for m in runner.model.backbone.modules() if hasattr(m, 'running_mean')):
        norm.running_mean.fill_(0.5)
    FrozenNormsCheck().before_train(runner)
    FrozenNormsCheck().before_train(toy.runner(tmp_path / 'trained'))

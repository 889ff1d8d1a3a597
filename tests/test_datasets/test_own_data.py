"""A config for a user's own class folders or annotations."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from toy import write_images

from mmadn.checkpoint.files import build_model
from mmadn.cli import merge_options
from mmadn.datasets import use_data
from mmadn.datasets.checks import check_heads
from mmadn.datasets.splitting import choose_val

DIGITS = 'configs/demo/resnet50_adn_digits.py'
SHAPES = 'configs/demo/mask_rcnn_r50adn_shapes.py'


def config(name, work_dir):
    cfg = Config.fromfile(ROOT / name)
    cfg.work_dir = str(work_dir)
    return cfg


def dataset(cfg, split):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def labelled(data):
    """The last two parts of every path, and the name of its class."""
    infos = [data.get_data_info(i) for i in range(len(data))]
    classes = data.metainfo['classes']
    return {('/'.join(Path(info['img_path']).parts[-2:]), classes[info['gt_label']]) for info in infos}


def test_a_share_of_every_class_is_chosen_whatever_the_order_of_the_files():
    members = {
        'many': [f'many/{i}' for i in range(50)],
        'few': [f'few/{i}' for i in range(3)],
        'one': ['one/0'],
    }
    chosen = choose_val(members)
    assert len([name for name in chosen if name.startswith('many')]) == 10
    assert len([name for name in chosen if name.startswith('few')]) == 1
    assert 'one/0' not in chosen
    shuffled = dict(reversed(members.items()))
    for names in shuffled.values():
        random.Random(1).shuffle(names)
    assert choose_val(shuffled) == chosen


def test_images_of_several_classes_keep_the_share_of_each():
    rng = random.Random(0)
    members = {
        name: rng.sample([str(i) for i in range(200)], n) for name, n in dict(a=120, b=60, c=10).items()
    }
    chosen = choose_val(members)
    shares = {name: len(chosen & set(images)) / len(images) for name, images in members.items()}
    assert shares['c'] == 0.2 and all(0.15 < share < 0.27 for share in shares.values())


def test_one_folder_is_split_and_the_lists_stay_in_the_work_dir(tmp_path):
    write_images(tmp_path / 'pets', ('cat', 'dog'), number=10)
    cfg = config(DIGITS, tmp_path / 'run')
    data = use_data(cfg, str(tmp_path / 'pets'))
    train, val = labelled(dataset(cfg, 'train')), labelled(dataset(cfg, 'val'))
    assert (len(train), len(val)) == (16, 4) == tuple(data.images.values())
    assert not train & val and all(path.startswith(name) for path, name in train | val)
    assert sorted(name for _, name in val) == ['cat', 'cat', 'dog', 'dog']
    assert (tmp_path / 'run/data/train.txt').exists() and 'val.txt' in data.remarks[0]
    assert labelled(dataset(cfg, 'test')) == val
    again = config(DIGITS, tmp_path / 'again')
    use_data(again, str(tmp_path / 'pets'))
    assert labelled(dataset(again, 'val')) == val


@pytest.mark.parametrize('given', ['both', 'one with subfolders'])
def test_two_folders_need_no_lists_and_move_with_their_root(tmp_path, given):
    for split in ('train', 'val'):
        write_images(tmp_path / 'pets' / split, ('cat', 'dog'))
    folders = (
        [str(tmp_path / 'pets')]
        if given != 'both'
        else [str(tmp_path / f'pets/{s}') for s in ('train', 'val')]
    )
    cfg = config(DIGITS, tmp_path / 'run')
    use_data(cfg, *folders)
    assert len(dataset(cfg, 'train')) == len(dataset(cfg, 'val')) == 4
    assert not (tmp_path / 'run/data').exists()
    (tmp_path / 'pets').rename(tmp_path / 'animals')
    merge_options(cfg, {'data_root': str(tmp_path / 'animals')})
    assert len(dataset(cfg, 'val')) == 4


def test_chosen_classes_have_the_labels_of_their_order(tmp_path):
    write_images(tmp_path / 'train', ('cat', 'dog', 'fish'))
    write_images(tmp_path / 'val', ('bird', 'cat', 'dog'))
    cfg = config(DIGITS, tmp_path / 'run')
    data = use_data(cfg, str(tmp_path / 'train'), str(tmp_path / 'val'), ['dog', 'cat'])
    for split in ('train', 'val'):
        found = dataset(cfg, split)
        assert found.metainfo['classes'] == ('dog', 'cat') == tuple(data.classes)
        assert {name for _, name in labelled(found)} == {'dog', 'cat'}
        assert all(path.startswith(name) for path, name in labelled(found))


@pytest.mark.parametrize(
    'folders, classes, message',
    [
        (
            {'train': ['cat', 'dog'], 'val': ['cat', 'dgo']},
            None,
            'other classes than .*train .*without dog and with dgo',
        ),
        ({'train': ['cat', 'dog'], 'val': ['cat', 'dog', 'fish']}, None, 'with fish'),
        (
            {'train': ['cat', 'dog'], 'val': ['cat', 'dog']},
            ['cat', 'fox'],
            "train has no class 'fox', only cat, dog",
        ),
        ({'train': ['cat'], 'val': ['cat']}, None, 'one class cat'),
        ({'train': [], 'val': ['cat', 'dog']}, None, 'no images in class folders'),
        (
            {'train': ['cat', 'dog'], 'test': ['cat', 'dog']},
            None,
            'none of val, valid, validation; give both',
        ),
    ],
    ids=['misspelt', 'more', 'unknown', 'one', 'none', 'no val'],
)
def test_folders_that_do_not_fit_are_named(tmp_path, folders, classes, message):
    for split, names in folders.items():
        (tmp_path / split).mkdir()
        write_images(tmp_path / split, names)
    with pytest.raises(ValueError, match=message):
        use_data(config(DIGITS, tmp_path / 'run'), str(tmp_path), classes=classes)


def test_damaged_images_are_named_all_at_once(tmp_path):
    write_images(tmp_path / 'pets')
    for name, content in {'cat/0.JPEG': b'', 'dog/1.JPEG': b'no image'}.items():
        (tmp_path / 'pets' / name).write_bytes(content)
    with pytest.raises(ValueError, match=r'cat/0.JPEG, .*dog/1.JPEG: no images that can be read'):
        use_data(config(DIGITS, tmp_path / 'run'), str(tmp_path / 'pets'))


def test_files_of_other_kinds_are_left_out_and_told_of(tmp_path):
    write_images(tmp_path / 'pets')
    (tmp_path / 'pets/cat/notes.txt').touch()
    (tmp_path / 'pets/.hidden').mkdir()
    data = use_data(config(DIGITS, tmp_path / 'run'), str(tmp_path / 'pets'))
    assert '1 .txt' in data.remarks[0] and sum(data.images.values()) == 4


@pytest.mark.parametrize('number', [1, 2, 8, 33])
def test_a_tiny_data_set_has_batches_without_a_single_image(tmp_path, number):
    write_images(tmp_path / 'train', number=number)
    write_images(tmp_path / 'val', number=1)
    cfg = config('configs/adn/resnet50_adn_v2_in1k.py', tmp_path / 'run')
    use_data(cfg, str(tmp_path))
    loader = cfg.train_dataloader
    assert 1 <= loader.batch_size <= 2 * number and cfg.auto_scale_lr.enable
    assert 2 * number % loader.batch_size != 1 or loader.drop_last


def test_several_processes_share_the_images(tmp_path, monkeypatch):
    write_images(tmp_path / 'pets', number=80)
    monkeypatch.setenv('WORLD_SIZE', '4')
    cfg = config(DIGITS, tmp_path / 'run')
    cfg.launcher = 'pytorch'
    use_data(cfg, str(tmp_path / 'pets'))
    assert cfg.train_dataloader.batch_size == 16  # of 128 images, of which each process has 32


@pytest.mark.parametrize(
    'name',
    [
        *(
            'adn/resnet50_adn_v2_in1k',
            'adn/mobilenetv2_adn_in1k',
            'adn/convnext_t_adn_in1k',
            'demo/vit_adn_digits',
        ),
        *('demo/faster_rcnn_r50adn_shapes', 'det/mask_rcnn_r50adn_coco', 'det/retinanet_r50adn_coco'),
    ],
)
def test_all_heads_and_metrics_have_the_classes(tmp_path, name):
    cfg = config(f'configs/{name}.py', tmp_path / 'run')
    if 'head' in cfg.model:
        write_images(tmp_path / 'data', ('a', 'b', 'c'))
        use_data(cfg, str(tmp_path / 'data'))
        assert cfg.val_evaluator.topk in (1, (1,))
        cfg.model.backbone.pop('init_cfg', None)
    else:
        write_coco(tmp_path / 'data', ('a', 'b', 'c'))
        use_data(cfg, str(tmp_path / 'data/boxes.json'))
        assert cfg.val_evaluator.ann_file == f'{tmp_path}/run/data/val.json'
    check_heads(build_model(cfg), 3, 'train')


def test_every_head_of_a_cascade_and_no_other_topk_is_changed(tmp_path):
    write_coco(tmp_path / 'data', ('a', 'b', 'c'))
    cfg = config(SHAPES, tmp_path / 'run')
    head = cfg.model.roi_head.bbox_head
    cfg.model.roi_head.bbox_head = [head, head.copy(), head.copy()]
    cfg.model.rpn_head.num_classes = 1
    cfg.model.train_cfg.rpn.assigner = dict(type='ATSSAssigner', topk=9)
    use_data(cfg, str(tmp_path / 'data/boxes.json'))
    assert [each.num_classes for each in cfg.model.roi_head.bbox_head] == [3, 3, 3]
    assert cfg.model.rpn_head.num_classes == 1 and cfg.model.train_cfg.rpn.assigner.topk == 9


def write_coco(folder, classes, images=10, change=None, path='boxes.json', place='images'):
    """An annotation file, with a box and a mask of each class in turn in every image."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=32, height=24) for i in range(images)],
        annotations=[
            dict(
                id=i + 1,
                image_id=i,
                category_id=10 + i % len(classes),
                bbox=[2, 3, 10, 10],
                segmentation=[[2, 3, 12, 3, 12, 13, 2, 13]],
                area=100,
                iscrowd=0,
            )
            for i in range(images)
        ],
        categories=[dict(id=10 + i, name=name) for i, name in enumerate(classes)],
    )
    for i in range(images):
        Image.fromarray(np.full((24, 32, 3), i, np.uint8)).save(folder / place / f'{i}.png')
    if change:
        change(content)
    (folder / path).write_text(json.dumps(content))
    return str(folder / path)


def boxes(data):
    """The name of the class of every box, by image."""
    classes = data.metainfo['classes']
    infos = [data.get_data_info(i) for i in range(len(data))]
    return {
        Path(info['img_path']).stem: [classes[each['bbox_label']] for each in info['instances']]
        for info in infos
    }


@pytest.mark.parametrize('place', ['.', 'images', 'boxes'])
def test_one_annotation_file_is_split_and_its_images_are_found(tmp_path, place):
    path = write_coco(tmp_path / 'data', ('cat', 'dog'), place=place)
    cfg = config(SHAPES, tmp_path / 'run')
    data = use_data(cfg, path)
    train, val = boxes(dataset(cfg, 'train')), boxes(dataset(cfg, 'val'))
    assert data.images == dict(train=8, val=2) and not train.keys() & val.keys()
    assert sorted(sum(val.values(), [])) == ['cat', 'dog']
    assert all(names == [('cat', 'dog')[int(stem) % 2]] for stem, names in (train | val).items())
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=False)
    assert 'metainfo' not in cfg and 'train_pipeline' not in cfg


def test_files_that_fit_are_used_as_they_are(tmp_path):
    for split in ('train', 'val'):
        write_coco(tmp_path / 'data', ('cat', 'dog'), path=f'{split}.json', place=split)
    cfg = config(SHAPES, tmp_path / 'run')
    use_data(cfg, str(tmp_path / 'data'))
    assert cfg.train_dataloader.dataset.ann_file == str(tmp_path / 'data/train.json')
    assert cfg.test_evaluator.ann_file == str(tmp_path / 'data/val.json')
    assert not (tmp_path / 'run').exists()


def test_categories_in_another_order_keep_their_labels(tmp_path):
    train = write_coco(tmp_path / 'a', ('cat', 'dog'))
    val = write_coco(tmp_path / 'b', ('cat', 'dog'), change=lambda content: content['categories'].reverse())
    cfg = config(SHAPES, tmp_path / 'run')
    use_data(cfg, train, val)
    assert boxes(dataset(cfg, 'val')) == {str(i): [('cat', 'dog')[i % 2]] for i in range(10)}
    use_data(cfg, train, val, ['dog', 'cat'])
    for split in ('train', 'val'):
        assert boxes(dataset(cfg, split)) == {str(i): [('cat', 'dog')[i % 2]] for i in range(10)}


def test_what_annotations_lack_is_filled_in(tmp_path):
    def strip(content):
        for image in content['images']:
            del image['width'], image['height']
        for number, annotation in enumerate(content['annotations']):
            del annotation['area'], annotation['iscrowd']
            annotation['id'] = number

    use_data(config(SHAPES, tmp_path / 'run'), write_coco(tmp_path / 'data', ('cat', 'dog'), change=strip))
    content = json.loads((tmp_path / 'run/data/train.json').read_text())
    assert all((image['width'], image['height']) == (32, 24) for image in content['images'])
    assert all(each['area'] == 100 and each['iscrowd'] == 0 for each in content['annotations'])
    assert min(each['id'] for each in content['annotations']) > 0


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c.pop('categories'), 'boxes.json has no categories'),
        (lambda c: c['annotations'][3].update(category_id=99), 'annotation 4, has category_id=99'),
        (lambda c: c['annotations'][3].update(image_id=99), 'annotation 4, has image_id=99'),
        (lambda c: c['annotations'][3].pop('bbox'), 'annotation 4, has no bbox'),
        (
            lambda c: c['annotations'][3].pop('segmentation'),
            'no segmentation, and this detector learns masks',
        ),
        (lambda c: c['categories'][1].update(name='cat'), 'two categories of one name'),
        (lambda c: c['images'][3].update(file_name='absent.png'), '1 of the 10 images .*absent.png'),
        (
            lambda c: c['images'][0].update(file_name='absent.png'),
            'name the folder of the images by --images',
        ),
    ],
    ids=['categories', 'category', 'image', 'box', 'mask', 'twice', 'missing', 'nowhere'],
)
def test_annotations_that_do_not_fit_are_named(tmp_path, change, message):
    path = write_coco(tmp_path / 'data', ('cat', 'dog'), change=change)
    with pytest.raises((ValueError, OSError), match=message):
        use_data(config(SHAPES, tmp_path / 'run'), path)


@pytest.mark.parametrize('given', ['absent.json', '.', 'text.json'])
def test_what_is_no_annotation_file_is_said(tmp_path, given):
    (tmp_path / 'text.json').write_text('hello')
    with pytest.raises((ValueError, OSError), match='format of COCO'):
        use_data(config(SHAPES, tmp_path / 'run'), str(tmp_path / given))

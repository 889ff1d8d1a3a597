import pytest
from mmengine.config import Config
from toy import write_images

from mmadn.cli import merge_options
from mmadn.datasets.image_folder import ImageFolder


def test_classes_are_the_sorted_folders(tmp_path):
    write_images(tmp_path / 'train', ('dog', 'cat'))
    dataset = ImageFolder(data_root=str(tmp_path), data_prefix='train', num_classes=2)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert dataset.get_gt_labels().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize('made', ['.', 'train', 'train/cat'])
def test_a_folder_without_images_is_one_clear_error(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(FileNotFoundError) as error:
        ImageFolder(data_root=str(tmp_path), data_prefix='train', num_classes=1000)
    assert error.value.__suppress_context__
    message = str(error.value)
    assert f'no images in {tmp_path / "train"}' in message
    for hint in (
        'train/<class>/*.JPEG',
        'val/<class>/*.JPEG',
        '1000 folders',
        '--cfg-options data_root=',
    ):
        assert hint in message


def test_a_relative_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path / 'data' / 'imagenet' / 'val')):
        ImageFolder(data_root='data/imagenet', data_prefix='val')


def test_a_missing_class_folder_is_an_error(tmp_path):
    write_images(tmp_path / 'val')
    with pytest.raises(FileNotFoundError, match='2 class folders instead of 3'):
        ImageFolder(data_root=str(tmp_path), data_prefix='val', num_classes=3)


def test_lazy_init_looks_later(tmp_path):
    dataset = ImageFolder(data_root=str(tmp_path), data_prefix='train', lazy_init=True)
    with pytest.raises(FileNotFoundError):
        len(dataset)


@pytest.mark.parametrize('old', ['data/coco', 'data/coco/'])
def test_a_new_data_root_reaches_all_that_lies_under_the_old(old):
    def config(root):
        root = root.rstrip('/')
        return dict(
            train_dataloader=dict(dataset=dict(data_root=root, pipeline=[dict(file=f'{root}/a.json')])),
            val_evaluator=dict(ann_file=f'{root}/annotations/val.json'),
            sizes=(1, 2),
            other='data/coco2/x',
        )

    cfg = Config(dict(data_root=old, **config(old)))
    merge_options(cfg, {'data_root': '/disk/coco/', 'train_dataloader.dataset.test_mode': True})
    assert cfg.train_dataloader.dataset.pop('test_mode') is True
    assert cfg.to_dict() == dict(data_root='/disk/coco/', **config('/disk/coco'))


def test_other_options_are_merged_as_usual():
    cfg = Config(dict(data_root='data', dataset=dict(data_root='data')))
    merge_options(cfg, {'dataset.data_root': 'data/other'})
    assert cfg.to_dict() == dict(data_root='data', dataset=dict(data_root='data/other'))
    cfg = Config(dict(dataset=dict(data_root='data')))
    merge_options(cfg, {'data_root': 'new'})
    assert cfg.dataset.data_root == 'data'

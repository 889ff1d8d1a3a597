"""A user's annotation files in COCO's format: where they and their images are, and how they are split."""

import json
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..utils.report import replacing
from .checks import check_chosen, check_names, check_readable, some
from .splitting import VAL_SHARE, OwnData, choose_val

# How a folder may hold the files of training and of validation.
LAYOUTS = (
    ('train.json', 'val.json'),
    ('annotations/train.json', 'annotations/val.json'),
    ('annotations/instances_train*.json', 'annotations/instances_val*.json'),
    ('train/_annotations.coco.json', 'valid/_annotations.coco.json'),
)


def coco_files(
    train: str,
    val: str | None,
    classes: Sequence[str] | None,
    folders: Sequence[str],
    masks: bool,
    out: Path,
) -> OwnData:
    """Where the annotations and the images of a detector are, with settings for mmdet's CocoDataset.

    A file is used as it is, if it can be. A copy in `out` takes its place if it is split, if its categories
    are not the classes in their order, or if entries lack what mmdet and pycocotools insist on.

    Args:
        train, val: Annotation files, or a folder in `train` that has them, see LAYOUTS. Without a file for
            validation that of training is split.
        classes: The categories that are used; by default all those of `train`.
        folders: Of the images of `train` and of `val`; by default they are looked for.
        masks: Whether the detector learns masks.
        out: The folder for copies.

    Raises:
        OSError: There is no such file.
        ValueError: The files do not fit, or an image cannot be read.
    """
    train, val = _both(train, val)
    files = {'train': train} if val is None else {'train': train, 'val': val}
    contents = {split: _read(path) for split, path in files.items()}
    own = [each['name'] for each in contents['train']['categories']]
    chosen, classes = bool(classes), list(classes or own)
    images = dict(zip(files, [*folders, *folders[-1:]], strict=False)) if folders else {}
    whole = {}
    for split, path in files.items():
        content = contents[split]
        names = [each['name'] for each in content['categories']]
        if len(set(names)) < len(names):
            raise InputError(f'{path} has two categories of one name: {some(names)}; rename one')
        if chosen:
            check_chosen(path, names, classes)
        else:
            check_names(path, names, classes, train, exact=False)
        images[split] = images.get(split) or _image_folder(path, content)
        _check_images(path, content, images[split])
        whole[split] = _completed(path, content, classes, images[split], masks)
    remarks = []
    if val is None:
        images['val'] = images['train']
        whole = dict(zip(('train', 'val'), _split(whole['train']), strict=True))
        remarks = [f'{VAL_SHARE:.0%} of the images are for validation: {out}/train.json and val.json']
    settings = {}
    for split, content in whole.items():
        path = files.get(split)
        if val is None or content != contents[split]:
            path = _write(out / f'{split}.json', content)
        settings[split] = dict(
            type='CocoDataset', data_root='', ann_file=path, data_prefix=dict(img=images[split])
        )
    numbers = {split: len(content['images']) for split, content in whole.items()}
    return OwnData(settings, classes, numbers, remarks)


def _both(train: str, val: str | None) -> tuple[str, str | None]:
    """The two annotation files, where the first may be a folder that has both."""
    for path in (train, val):
        if path is not None and not os.path.exists(path):
            raise FileNotFoundError(f'{path} is not there; give an annotation file in the format of COCO')
    if not os.path.isdir(train):
        return train, val
    for layout in LAYOUTS:
        found = [sorted(Path(train).glob(pattern)) for pattern in layout]
        if found[0]:
            return str(found[0][0]), val or (str(found[1][0]) if found[1] else None)
    raise InputError(
        f'{train} has no annotation file {", ".join(layout[0] for layout in LAYOUTS)}; a detector is trained '
        'on a file in the format of COCO: give its path'
    )


def _read(path: str) -> dict:
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise InputError(f'{path} is no JSON ({error}); give annotations in the format of COCO') from None
    missing = [name for name in ('images', 'annotations', 'categories') if not _filled(content, name)]
    if missing:
        raise InputError(f'{path} has no {", ".join(missing)}; give annotations in the format of COCO')
    return content


def _filled(content: object, name: str) -> bool:
    return isinstance(content, dict) and isinstance(content.get(name), list) and bool(content[name])


def _image_folder(path: str, content: dict) -> str:
    """The folder of the images of an annotation file: beside it, or one of its name, or `images`."""
    file, name = Path(path), content['images'][0]['file_name']
    roots = [file.parent, file.parent.parent] if file.parent.name == 'annotations' else [file.parent]
    folders = ('', file.stem, file.stem.removeprefix('instances_'), 'images', f'images/{file.stem}')
    places = [os.path.join(root, folder) for root, folder in product(roots, folders)]
    for place in places:
        if os.path.exists(os.path.join(place, name)):
            return place.rstrip('/')
    raise FileNotFoundError(
        f'{name}, the first image of {path}, is in none of {", ".join(dict.fromkeys(places))}; name the '
        'folder of the images by --images'
    )


def _check_images(path: str, content: dict, folder: str) -> None:
    paths = [os.path.join(folder, image['file_name']) for image in content['images']]
    if missing := [each for each in paths if not os.path.exists(each)]:
        raise FileNotFoundError(
            f'{len(missing)} of the {len(paths)} images of {path} are not in {folder}: {some(missing)}'
        )
    check_readable(paths)


def _completed(path: str, content: dict, classes: Sequence[str], folder: str, masks: bool) -> dict:
    """The annotations with their categories in the order of the classes, and all that is read of them."""
    by_name = {each['name']: each for each in content['categories']}
    categories = [by_name[name] for name in classes]
    images, known = [], {name: {each['id'] for each in content[name]} for name in ('categories', 'images')}
    for image in content['images']:
        if not {'width', 'height'} <= image.keys():
            with Image.open(os.path.join(folder, image['file_name'])) as picture:
                image = {**image, 'width': picture.width, 'height': picture.height}
        images.append(image)
    annotations, ids = [], set()
    for place, annotation in enumerate(content['annotations']):
        where = f'{path}, annotation {annotation.get("id", place)}'
        for name in ('image_id', 'category_id', 'bbox'):
            if name not in annotation:
                raise InputError(f'{where}, has no {name}')
        for name, numbers in {'category_id': known['categories'], 'image_id': known['images']}.items():
            if annotation[name] not in numbers:
                raise InputError(f'{where}, has {name}={annotation[name]}, and nothing has that id')
        if masks and not annotation.get('segmentation'):
            raise InputError(
                f'{where}, has no segmentation, and this detector learns masks; choose one of boxes, such as '
                'configs/det/faster_rcnn_r50adn_coco.py'
            )
        area = annotation['bbox'][2] * annotation['bbox'][3]
        annotations.append({'area': area, 'iscrowd': 0, **annotation})
        ids.add(annotation.get('id'))
    # pycocotools takes the number 0 for no annotation at all.
    if len(ids) < len(annotations) or ids & {0, None}:
        annotations = [{**annotation, 'id': number} for number, annotation in enumerate(annotations, 1)]
    return {
        **content,
        'images': images,
        'annotations': annotations,
        'categories': categories + [each for each in content['categories'] if each['name'] not in classes],
    }


def _split(content: dict) -> tuple[dict, dict]:
    """A part for training and a part for validation, with a share of every category in each."""
    names = {image['id']: image['file_name'] for image in content['images']}
    members = {category['id']: [] for category in content['categories']}
    for annotation in content['annotations']:
        members[annotation['category_id']].append(names[annotation['image_id']])
    labelled = {name for each in members.values() for name in each}
    groups = {str(category): sorted(set(each)) for category, each in members.items()}
    groups['none'] = sorted(set(names.values()) - labelled)
    for_val = choose_val(groups)
    parts = []
    for is_val in (False, True):
        images = [image for image in content['images'] if (image['file_name'] in for_val) is is_val]
        kept = {image['id'] for image in images}
        annotations = [each for each in content['annotations'] if each['image_id'] in kept]
        parts.append({**content, 'images': images, 'annotations': annotations})
    return parts[0], parts[1]


def _write(path: Path, content: dict) -> str:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding='utf-8')
    return str(path)

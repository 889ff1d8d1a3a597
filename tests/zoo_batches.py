"""Small batches of drawn shapes for any model of the zoos of mmdet, mmseg and mmrotate."""

import copy
import re

import detectors
import torch
from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, LabelData, PixelData
from torch import Tensor
from torch.nn import functional as F

SIZE = 96  # pixels, both ways
CLASSES = 4  # of the drawn shapes
SEED = 4  # of two images with several objects each


def train_batch(cfg: Config, size: int = SIZE) -> dict:
    """What the data loader of a config would give its model to train on, for two images."""
    data = detectors.batch(seed=SEED, size=SIZE)
    if size != SIZE:
        enlarge(data, size)
    classes = fewest_classes(cfg.model)
    for sample in data['data_samples']:
        sample.gt_instances.labels %= classes
    if cfg.default_scope == 'mmseg':
        return dict(data, data_samples=[segmentation(sample) for sample in data['data_samples']])
    if cfg.model.type == 'BaseReID':
        return reid(data)
    for sample in data['data_samples']:
        annotate(sample, cfg)
    if cfg.model.type == 'SoftTeacher':
        return branches(data)
    if cfg.model.get('data_preprocessor', {}).get('type') == 'TrackDataPreprocessor':
        return video(data)
    return data


def test_batch(cfg: Config, size: int = SIZE) -> dict:
    """The same for prediction: one image or one video, because some heads predict one at a time."""
    batch = train_batch(cfg, size)
    return {key: (value['sup'] if 'sup' in value else value)[:1] for key, value in batch.items()}


def fewest_classes(settings: dict) -> int:
    """The number of labels that no head of a model refuses."""
    found = [CLASSES]
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name in ('num_classes', 'num_things_classes') and isinstance(value, int):
            found.append(value)
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            found.append(fewest_classes(inner))
    return min(found)


def enlarge(data: dict, size: int) -> None:
    data['inputs'] = [F.interpolate(image[None], size=(size, size))[0] for image in data['inputs']]
    for sample in data['data_samples']:
        sample.gt_instances.bboxes *= size / SIZE
        sample.gt_instances.masks = sample.gt_instances.masks.resize((size, size))
        sample.set_metainfo(dict(img_shape=(size, size), ori_shape=(size, size)))


def painted(sample: DetDataSample, background: int) -> Tensor:
    """The labels of an image's objects at their pixels, of shape (1, H, W)."""
    masks = sample.gt_instances.masks
    labels = torch.full((1, masks.height, masks.width), background)
    for label, mask in zip(sample.gt_instances.labels, masks.masks, strict=True):
        labels[0][torch.from_numpy(mask) > 0] = label
    return labels


def annotate(sample: DetDataSample, cfg: Config) -> None:
    """Completes a sample of mmdet by all that some head of its zoo reads."""
    objects, shape = sample.gt_instances, sample.img_shape
    objects.instances_ids = torch.arange(len(objects))
    stride = 8 if cfg.model.type in ('HybridTaskCascade', 'SCNet') else 1  # of their semantic heads
    sample.gt_sem_seg = PixelData(sem_seg=painted(sample, 255)[:, ::stride, ::stride])
    if cfg.model.type == 'FastRCNN':
        boxes = torch.cat([objects.bboxes, objects.bboxes * 0.9, torch.tensor([[0.0, 0, 50, 50]])])
        sample.proposals = InstanceData(bboxes=boxes, scores=torch.linspace(0.9, 0.1, len(boxes)))
    sample.set_metainfo(dict(flip=False, flip_direction=None, border=[0, shape[0], 0, shape[1]]))
    sample.set_metainfo(dict(pad_shape=shape, batch_input_shape=shape, img_path='image.png'))
    pipeline = str(cfg.get('train_pipeline'))
    if not any(word in pipeline for word in ("'with_mask': True", 'Panoptic')):
        del objects.masks
    if cfg.default_scope == 'mmrotate':
        rotate(sample, ['qbox', *re.findall("'gt_bboxes': '(.box)'", pipeline)][-1])


def rotate(sample: DetDataSample, box_type: str) -> None:
    """Turns the boxes by different angles."""
    from mmrotate.structures import RotatedBoxes

    corners = sample.gt_instances.bboxes
    angles = torch.linspace(-0.7, 0.7, len(corners))[:, None]
    centers, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    boxes = RotatedBoxes(torch.cat([centers, sizes * torch.tensor([1.0, 0.6]), angles], 1))
    sample.gt_instances.bboxes = boxes.convert_to(box_type)
    sample.ignored_instances.bboxes = boxes[:0].convert_to(box_type)


def segmentation(sample: DetDataSample) -> object:
    from mmseg.structures import SegDataSample

    meta = dict(img_shape=sample.img_shape, ori_shape=sample.ori_shape, pad_shape=sample.img_shape)
    return SegDataSample(gt_sem_seg=PixelData(data=painted(sample, 0)), metainfo=meta)


def reid(data: dict) -> dict:
    """Two identities, two images each, of the size that the neck's pooling window fits."""
    images = [F.interpolate(image[None], size=(256, 128))[0] for image in data['inputs']]
    samples = []
    for label in (0, 1, 0, 1):
        sample = ReIDDataSample(metainfo=dict(img_shape=(256, 128), ori_shape=(256, 128)))
        sample.gt_label = LabelData(label=torch.tensor([label]))
        samples.append(sample)
    return dict(inputs=images + [image.flip(-1) for image in images], data_samples=samples)


def video(data: dict) -> dict:
    """One video of two frames, the first of which is the key frame."""
    for number, frame in enumerate(data['data_samples']):
        frame.set_metainfo(dict(frame_id=number, video_id=0, video_length=2, is_video_data=True))
    sample = TrackDataSample(video_data_samples=data['data_samples'])
    sample.set_metainfo(dict(key_frames_inds=[0], ref_frames_inds=[1]))
    return dict(inputs=[torch.stack(data['inputs'])], data_samples=[sample])


def branches(data: dict) -> dict:
    """The same images for every branch of a semi-supervised model."""
    for sample in data['data_samples']:
        sample.set_metainfo(dict(homography_matrix=torch.eye(3).numpy()))
    names = ('sup', 'unsup_teacher', 'unsup_student')
    return {key: {name: copy.deepcopy(value) for name in names} for key, value in data.items()}

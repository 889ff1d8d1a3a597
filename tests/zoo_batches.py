"""Small batches of drawn shapes for any model of the zoos of mmdet, mmseg and mmrotate."""

import copy

import detectors
import torch
from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData, LabelData, PixelData

SIZE = 96  # pixels, both ways


def train_batch(cfg, seed=0):
    """What the data loader of a config would give its model, for two images."""
    data = detectors.batch(seed=seed, size=SIZE)
    if cfg.default_scope == 'mmseg':
        return segmentation(data, least(cfg.model, 'num_classes'))
    if cfg.model.type == 'BaseReID':
        return reid(data)
    for sample in data['data_samples']:
        annotate(sample, cfg)
    if cfg.model.type == 'SoftTeacher':
        return branches(data)
    if cfg.model.data_preprocessor.type == 'TrackDataPreprocessor':
        return track(data)
    return data


def test_batch(cfg, seed=0):
    data = train_batch(cfg, seed)
    return {key: value['sup'] if 'sup' in value else value for key, value in data.items()}


def annotate(sample, cfg):
    """Completes a data sample of mmdet: labels that the model has, stuff, proposals, rotated boxes."""
    things = least(cfg.model, 'num_classes', 'num_things_classes')
    objects = sample.gt_instances
    objects.labels %= things
    objects.instances_ids = torch.arange(len(objects))
    stuff = torch.full((1, SIZE, SIZE), 255)
    for label, mask in zip(objects.labels, objects.masks.masks, strict=True):
        stuff[0][torch.from_numpy(mask) > 0] = label
    stride = 8 if 'HybridTaskCascade' in cfg.model.type or cfg.model.type == 'SCNet' else 1
    sample.gt_sem_seg = PixelData(sem_seg=stuff[:, ::stride, ::stride])
    if cfg.model.type == 'FastRCNN':
        boxes = torch.cat([objects.bboxes, objects.bboxes * 0.9, torch.tensor([[0.0, 0, 50, 50]])])
        sample.proposals = InstanceData(bboxes=boxes, scores=torch.linspace(0.9, 0.1, len(boxes)))
    sample.set_metainfo(dict(flip=False, flip_direction=None, border=[0, SIZE, 0, SIZE]))
    sample.set_metainfo(dict(pad_shape=(SIZE, SIZE), batch_input_shape=(SIZE, SIZE)))
    sample.set_metainfo(dict(text='circle . square .', custom_entities=False, img_path='image.png'))
    if 'with_mask=True' not in (pipeline := str(cfg.get('train_pipeline'))) and "'with_mask': True" not in pipeline and 'Panoptic' not in pipeline:
        del objects.masks
    if cfg.default_scope == 'mmrotate':
        rotate(sample, cfg)


def rotate(sample, cfg):
    from mmrotate.structures import RotatedBoxes

    objects = sample.gt_instances
    corners = objects.bboxes
    angle = torch.linspace(-0.7, 0.7, len(corners))[:, None]
    center, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    boxes = RotatedBoxes(torch.cat([center, size * torch.tensor([1.0, 0.6]), angle], 1))
    types = [step.get('box_type_mapping', {}).get('gt_bboxes') for step in cfg.train_pipeline]
    wanted = next(filter(None, types), 'rbox')
    objects.bboxes = boxes.convert_to(wanted)
    sample.ignored_instances.bboxes = boxes[:0].convert_to(wanted)


def segmentation(data, classes):
    from mmseg.structures import SegDataSample

    samples = []
    for sample in data['data_samples']:
        labels = torch.zeros(1, SIZE, SIZE, dtype=torch.long)
        objects = sample.gt_instances
        for label, mask in zip(objects.labels, objects.masks.masks, strict=True):
            labels[0][torch.from_numpy(mask) > 0] = label % classes
        meta = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
    return dict(inputs=data['inputs'], data_samples=samples)


def reid(data):
    """Two identities, two crops each, of the size that the neck's pooling window fits."""
    crops = [torch.nn.functional.interpolate(image[None], (256, 128))[0] for image in data['inputs']]
    samples = []
    for label in (0, 1, 0, 1):
        sample = ReIDDataSample(metainfo=dict(img_shape=(256, 128), ori_shape=(256, 128)))
        sample.gt_label = LabelData(label=torch.tensor([label]))
        samples.append(sample)
    return dict(inputs=crops + [crop.flip(-1) for crop in crops], data_samples=samples)


def track(data):
    """One video of two frames, the first of which is the key frame."""
    sample = TrackDataSample(video_data_samples=data['data_samples'])
    sample.set_metainfo(dict(key_frames_inds=[0], ref_frames_inds=[1]))
    for number, frame in enumerate(data['data_samples']):
        frame.set_metainfo(dict(frame_id=number, video_id=0, video_length=2, is_video_data=True))
    return dict(inputs=[torch.stack(data['inputs'])], data_samples=[sample])


def branches(data):
    """The same images for each branch of a semi-supervised model."""
    names = ('sup', 'unsup_teacher', 'unsup_student')
    for sample in data['data_samples']:
        sample.set_metainfo(dict(homography_matrix=torch.eye(3).numpy()))
    copies = [copy.deepcopy(data) for _ in names]
    return {key: {n: c[key] for n, c in zip(names, copies, strict=True)} for key in data}


def least(settings, *names):
    """The least number that a setting of one of these names has anywhere in a config."""
    found = [4]
    if isinstance(settings, dict):
        for name, value in settings.items():
            found.append(value if name in names and isinstance(value, int) else least(value, *names))
    elif isinstance(settings, (list, tuple)):
        found += [least(value, *names) for value in settings]
    return min(found)

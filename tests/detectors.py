"""The three detectors of configs/demo, narrower still, and small batches of drawn shapes for them."""

import mmadn  # noqa: F401, I001  first, for torchvision

import copy

import numpy as np
import torch
from conftest import ROOT
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from projects.paper.shapes import draw, load_photographs

DETECTORS = ('faster_rcnn', 'mask_rcnn', 'retinanet')
NARROW = dict(stem_channels=8, base_channels=4)


def config(name, **backbone):
    cfg = Config.fromfile(ROOT / f'configs/demo/{name}_r50adn_shapes.py')
    cfg.model.backbone.update(NARROW, **backbone)
    cfg.model.neck.in_channels = [16, 32, 64, 128]
    return cfg


def dino(**model):
    """The config of the DINO of configs/demo, narrower still, with nothing random in a pass."""
    cfg = Config.fromfile(ROOT / 'configs/demo/dino_adn_shapes.py')
    cfg.model.backbone.update(NARROW)
    cfg.model.neck.in_channels = [32, 64, 128]
    cfg.model.dn_cfg.update(label_noise_scale=1e-9, box_noise_scale=1e-9)
    cfg.model.update(num_queries=10, **model)
    return cfg


def build(name, **backbone):
    return initialized(config(name, **backbone).model)


def initialized(model):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(model))
    model.init_weights()
    return model


def batch(n=2, seed=0, size=64, objects=True):
    """Crops of `size` pixels with their shapes; without `objects`, the same without any annotation."""
    samples, images = [], []
    photographs = load_photographs()[:1]
    for i in range(n):
        pixels, shapes = draw(np.random.default_rng([seed, i]), photographs)
        cut = slice(32, 32 + size)
        found = [(label, mask[cut, cut]) for label, mask in shapes if mask[cut, cut].sum() > 16]
        found = found if objects else []
        masks = np.array([mask for _, mask in found], np.uint8).reshape(len(found), size, size)
        instances = InstanceData(
            labels=torch.tensor([int(label) for label, _ in found], dtype=torch.long),
            masks=BitmapMasks(masks, size, size),
        )
        instances.bboxes = instances.masks.get_bboxes(dst_type='hbox').tensor
        sample = DetDataSample(
            gt_instances=instances, ignored_instances=InstanceData(bboxes=torch.zeros(0, 4))
        )
        shape = (size, size)
        sample.set_metainfo(dict(img_id=i, img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
        samples.append(sample)
        images.append(torch.from_numpy(pixels[cut, cut, ::-1].copy()).permute(2, 0, 1))
    return dict(inputs=images, data_samples=samples)


def twins(seed=0):
    """Two images with the same objects on different noise: a batch whose halves have losses that average."""
    data = batch(1, seed)
    noise = torch.Generator().manual_seed(seed)
    (image,) = data['inputs']
    other = (image + torch.randint(-40, 40, image.shape, generator=noise)).clamp(0, 255).to(image.dtype)
    return dict(inputs=[image, other], data_samples=data['data_samples'] * 2)

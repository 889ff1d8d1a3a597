"""Tiny segmentors of mmseg, and drawn batches for them. Importing this needs mmseg."""

import mmadn  # noqa: F401, I001  first, for torchvision

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

CLASSES, SIZE = 4, 64
NORM = dict(type='GN', num_groups=2)  # of a batch norm the statistics would follow the batch
_common = dict(num_classes=CLASSES, channels=8, dropout_ratio=0, norm_cfg=NORM)
_fcn = dict(type='FCNHead', in_channels=64, in_index=2, num_convs=1, **_common)
_points = dict(type='PointHead', in_channels=[8], in_index=[0], num_fcs=1, coarse_pred_each_layer=True)
FPN = dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=8, num_outs=4)
SEMANTIC_FPN = dict(
    type='FPNHead', in_channels=[8] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], **_common
)
HEADS = {
    'pspnet': dict(
        decode_head=dict(type='PSPHead', in_channels=128, in_index=3, pool_scales=(1, 2), **_common),
        auxiliary_head=_fcn,
    ),
    'semantic_fpn': dict(neck=FPN, decode_head=SEMANTIC_FPN),
    'danet': dict(decode_head=dict(type='DAHead', in_channels=128, in_index=3, pam_channels=4, **_common)),
    'ocrnet': dict(
        type='CascadeEncoderDecoder',
        num_stages=2,
        decode_head=[_fcn, dict(type='OCRHead', in_channels=128, in_index=3, ocr_channels=8, **_common)],
    ),
    'pointrend': dict(
        type='CascadeEncoderDecoder',
        num_stages=2,
        neck=FPN,
        decode_head=[SEMANTIC_FPN, {**_points, **_common, 'norm_cfg': None}],
        train_cfg=dict(num_points=16, oversample_ratio=3, importance_sample_ratio=0.75),
        test_cfg=dict(mode='whole', subdivision_steps=1, subdivision_num_points=16, scale_factor=2),
    ),
}


def config(name='pspnet', **backbone):
    dilated = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    narrow = dict(depth=50, stem_channels=4, base_channels=4, zero_init_residual=False)
    backbone = {**narrow, **({} if 'neck' in HEADS[name] else dilated), **backbone}
    means = dict(mean=[127.5] * 3, std=[127.5] * 3)
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=32, seg_pad_val=255, **means),
        backbone=dict(type='mmadn.ADNResNetV1c', **backbone),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    return ConfigDict({**model, **HEADS[name]})


def build(name='pspnet', **backbone):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config(name, **backbone)))
    model.init_weights()
    for name, parameter in model.named_parameters():
        if 'conv_seg' in name:
            torch.nn.init.normal_(parameter, std=0.2)  # not near zero, where all depths agree
    return model


def batch(n=2, seed=0):
    """Rectangles of the classes on noise; the upper rows have no label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n, 1, 4, 4), generator=generator)
    labels = labels.repeat_interleave(SIZE // 4, 2).repeat_interleave(SIZE // 4, 3)
    noise = torch.randint(0, 64, (n, 3, SIZE, SIZE), generator=generator)
    images = (noise + 48 * labels).to(torch.uint8)
    labels[:, :, :8] = 255
    shape = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))
    samples = [SegDataSample(metainfo=shape, gt_sem_seg=PixelData(data=each)) for each in labels]
    return dict(inputs=list(images), data_samples=samples)


class Rectangles(Dataset):
    """Eight images of `batch`."""

    metainfo = dict(classes=list('abcd'), palette=[[0, 0, 0]] * 4)

    def __len__(self):
        return 8

    def __getitem__(self, i):
        data = batch(1, seed=i)
        return {key: values[0] for key, values in data.items()}

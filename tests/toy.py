"""A tiny classifier, data and runner for the tests of hooks, loops and tools."""

import mmadn  # noqa: F401, I001  first, for torchvision

import numpy as np
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from PIL import Image
from torch.utils.data import Dataset

CLASSES = 5
BACKBONE = dict(type='mmadn.ADNResNet', depth=50, stem_channels=4, base_channels=4, zero_init_residual=False)


def model_cfg(backbone=None, train_cfg=None, **head):
    return dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(num_classes=CLASSES, mean=[127.5] * 3, std=[127.5] * 3),
        backbone={**BACKBONE, **(backbone or {})},
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES, in_channels=128, **head),
        train_cfg=train_cfg,
    )


def build(**kwargs):
    torch.manual_seed(0)
    model = MODELS.build(model_cfg(**kwargs))
    model.init_weights()
    return model


def batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])


class Gradients(OptimWrapper):
    """Keeps the gradients in place of a step."""

    def __init__(self, model):
        super().__init__(torch.optim.SGD(model.parameters(), lr=0.1))
        self.model = model

    def step(self, **kwargs):
        self.kept = {
            name: None if p.grad is None else p.grad.clone() for name, p in self.model.named_parameters()
        }


class Images(Dataset):
    """16 random images; counts how often one was loaded."""

    metainfo = dict(classes=list('abcde'))

    def __init__(self):
        self.data, self.loaded = batch(16), 0

    def __len__(self):
        return 16

    def __getitem__(self, i):
        self.loaded += 1
        sample = DataSample().set_gt_label(self.data['data_samples'][i].gt_label)
        return dict(inputs=self.data['inputs'][i], data_samples=sample)


def runner(work_dir, model=None, hooks=(), epochs=2, **kwargs):
    def loader(shuffle):
        return dict(
            batch_size=4,
            num_workers=0,
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
        )

    settings = dict(
        model=model or model_cfg(),
        work_dir=str(work_dir),
        train_dataloader=loader(True),
        val_dataloader=loader(False),
        test_dataloader=loader(False),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(type='mmadn.SubnetValLoop'),
        test_cfg=dict(type='mmadn.SubnetTestLoop'),
        val_evaluator=dict(type='Accuracy', topk=1),
        test_evaluator=dict(type='Accuracy', topk=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type='mmadn.SelfDistillationHook'), *hooks],
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=str(work_dir).replace('/', '_'),
    )
    return Runner(**{**settings, **kwargs})


def write_images(folder, classes=('cat', 'dog'), number=2, size=(64, 48)):
    """Noise as JPEG files, `number` in each class folder of `folder`."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{i}.JPEG')

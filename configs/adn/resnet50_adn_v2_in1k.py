# The paper's accuracies: super-net FFFF 80.5, base-net TTTT 78.4 (top-1). The recipe is
# torchvision's second one for ResNet50, without its label smoothing, as the published training.
_base_ = 'resnet50_adn_in1k.py'

model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]))
randomness = dict(diff_rank_seed=True)  # every GPU draws its own mixup or cutmix

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=176, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/TrivialAugmentWide', interpolation='bilinear'),
    dict(type='PILToNumpy', to_bgr=True),
    # Before normalisation the mean colour (BGR) is what zero is after it.
    dict(
        type='RandomErasing',
        erase_prob=0.1,
        max_area_ratio=0.33,
        aspect_range=(0.3, 3.3),
        fill_color=(104, 116, 124),
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=256,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='RepeatAugSampler', num_repeats=4),
    drop_last=True,  # as torchvision's sampler: 1251 iterations an epoch on 4 GPUs
)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 232
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(lr=0.5, weight_decay=2e-5))
# How often the warm-up moves is not stated: here every iteration, in torchvision once an epoch.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=5, end=600, T_max=595),
]
auto_scale_lr = dict(base_batch_size=1024)  # 4 GPUs x 256
train_cfg = dict(max_epochs=600)
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', alpha=0.5),
    # torchvision's 0.99998, scaled to this batch, interval and number of epochs, is 0.998908. As
    # there, the average is a copy of the model during the warm-up: it starts with the sixth epoch.
    dict(type='EMAHook', momentum=1 - 0.998908, interval=32, update_buffers=True, begin_epoch=6),
]

# The paper's accuracies: super-net FFFF 81.4, base-net TTTT 80.6 (top-1). The recipe is torchvision's, for a
# batch of 1024 and with less weight decay, as the published training.
_base_ = [
    '../_base_/imagenet.py',
    'mmpretrain::_base_/models/vit-base-p16.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='mmadn.ADNVisionTransformer', drop_rate=0.0),
    head=dict(loss=dict(label_smooth_val=0.11, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]),
)
randomness = dict(diff_rank_seed=True)  # every GPU draws its own mixup or cutmix

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/RandAugment', num_ops=2, magnitude=9, interpolation='bilinear'),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=256,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='RepeatAugSampler', num_repeats=3),
    drop_last=True,
)

# Weight decay is on every parameter, norms and biases too.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=7.5e-4, weight_decay=0.2),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.033, end=30, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=30, end=300),
]
auto_scale_lr = dict(base_batch_size=1024)  # 4 GPUs x 256

train_cfg = dict(by_epoch=True, max_epochs=300)
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', alpha=0.5),
    # Decay and interval as for Swin-T; the average is a copy of the model during the warm-up.
    dict(type='EMAHook', momentum=1 - 0.997815, interval=32, update_buffers=True, begin_epoch=31),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='TTTT/accuracy/top1'))

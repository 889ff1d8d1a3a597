# The paper's accuracies: super-net FFFF 81.6, base-net TTTT 78.0 (top-1). The recipe is torchvision's, with
# half its stochastic depth, as the published training.
_base_ = [
    '../_base_/imagenet.py',
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',  # label smoothing 0.1, mixup 0.8, cutmix 1.0
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',  # AdamW 1e-3, 0.05; what has no decay
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(backbone=dict(type='mmadn.ADNSwinTransformer', drop_path_rate=0.1))
randomness = dict(diff_rank_seed=True)  # every GPU draws its own mixup or cutmix

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/TrivialAugmentWide', interpolation='bicubic'),
    dict(type='PILToNumpy', to_bgr=True),
    # Before normalisation the mean colour (BGR) is what zero is after it.
    dict(
        type='RandomErasing',
        erase_prob=0.25,
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
    drop_last=True,
)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=224, interpolation='bicubic')
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(type='AmpOptimWrapper', clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=20, end=300, eta_min=1e-5),
]

val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', alpha=0.5),
    # torchvision's 0.99998, scaled to this batch, interval and number of epochs, is 0.997815. As there,
    # the average is a copy of the model during the warm-up.
    dict(type='EMAHook', momentum=1 - 0.997815, interval=32, update_buffers=True, begin_epoch=21),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='TTTT/accuracy/top1'))

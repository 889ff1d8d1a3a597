# A narrow ResNet50-ADN on scikit-learn's handwritten digits; `make demo` writes the data and runs it.
default_scope = 'mmpretrain'
work_dir = 'work_dirs/demo'
data_root = 'data/digits'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook'),
    dict(type='mmadn.CalibrationHook', num_images=256),
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3),
    # Residual branches that start at zero would still be near it after so short a training, and any
    # network could skip them.
    backbone=dict(
        type='mmadn.ADNResNet', depth=50, stem_channels=16, base_channels=16, zero_init_residual=False
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512, topk=(1,), cal_acc=True),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=32),
    dict(type='RandomCrop', crop_size=32, padding=3),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=32),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmadn.ImageFolder', data_root=data_root, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmadn.ImageFolder', data_root=data_root, data_prefix='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=36, val_interval=6)
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=6, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=6, end=36, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10),
    checkpoint=dict(type='CheckpointHook', interval=36, save_best='TTTT/accuracy/top1'),
)
randomness = dict(seed=0)

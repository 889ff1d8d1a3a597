# A narrow PSPNet on ResNet50-ADN segments the drawn shapes.
default_scope = 'mmseg'
work_dir = 'work_dirs/demo_seg'
data_root = 'data/shapes'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook'),
    dict(type='mmadn.CalibrationHook', num_images=256),
]

norm_cfg = dict(type='BN')
loss = dict(type='CrossEntropyLoss')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
        size=(128, 128),
        seg_pad_val=255,
    ),
    # From scratch, so no residual branch starts at zero.
    backbone=dict(
        type='mmadn.ADNResNetV1c',
        depth=50,
        stem_channels=32,
        base_channels=8,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=norm_cfg,
        norm_eval=False,
        contract_dilation=True,
        zero_init_residual=False,
    ),
    decode_head=dict(
        type='PSPHead',
        in_channels=256,
        in_index=3,
        channels=64,
        num_classes=5,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=loss,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=128,
        in_index=2,
        channels=32,
        num_convs=1,
        concat_input=False,
        num_classes=5,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(loss, loss_weight=0.4),
    ),
    test_cfg=dict(mode='whole'),
)

metainfo = dict(
    classes=('background', 'circle', 'square', 'triangle', 'star'),
    palette=[(0, 0, 0), (213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167)],
)
dataset = dict(type='BaseSegDataset', data_root=data_root, img_suffix='.png', metainfo=metainfo)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='train', seg_map_path='labels/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset, data_prefix=dict(img_path='val', seg_map_path='labels/val'), pipeline=test_pipeline
    ),
)
# Held out: no setting here was picked on it.
test_dataloader = dict(
    val_dataloader,
    dataset=dict(val_dataloader['dataset'], data_prefix=dict(img_path='test', seg_map_path='labels/test')),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=5)
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05), clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10),
    checkpoint=dict(type='CheckpointHook', interval=5),
)
randomness = dict(seed=0)

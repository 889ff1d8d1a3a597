_base_ = 'resnet50_adn_digits.py'

work_dir = 'work_dirs/vit_adn_digits'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmadn.ADNVisionTransformer',
        arch=dict(embed_dims=48, num_layers=12, num_heads=4, feedforward_channels=96),
        img_size=32,
        patch_size=8,
    ),
    neck=None,
    head=dict(type='VisionTransformerClsHead', in_channels=48),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=18, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=18, end=60, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=60, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=60))

_base_ = 'resnet50_adn_digits.py'

work_dir = 'work_dirs/swin_adn_digits'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmadn.ADNSwinTransformer',
        arch=dict(embed_dims=24, depths=[2, 2, 6, 2], num_heads=[1, 2, 4, 8]),
        patch_size=4,
        window_size=4,
        pad_small_map=True,
    ),
    head=dict(in_channels=192),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=12, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=12, end=40, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=40))

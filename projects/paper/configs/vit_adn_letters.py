_base_ = ['_base_/resnet50_adn.py', '_base_/letters_contrast.py', '_base_/1800_iterations.py']

work_dir = 'work_dirs/vit_adn_letters'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmadn.ADNVisionTransformer',
        arch=dict(embed_dims=64, num_layers=12, num_heads=4, feedforward_channels=128),
        img_size=48,
        patch_size=8,
    ),
    neck=None,
    head=dict(_delete_=True, type='VisionTransformerClsHead', num_classes=26, in_channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))

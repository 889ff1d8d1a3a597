_base_ = ['_base_/resnet50_adn.py', '_base_/letters_contrast.py', '_base_/1800_iterations.py']

work_dir = 'work_dirs/convnext_adn_letters'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmadn.ADNConvNeXt',
        arch=dict(depths=[3, 3, 9, 3], channels=[16, 24, 32, 64]),
        layer_scale_init_value=1.0,  # as with zero-initialised branches: near zero would hide all depth
    ),
    neck=None,
    head=dict(in_channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))

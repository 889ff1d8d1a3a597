_base_ = ['_base_/resnet50_adn.py', '_base_/letters_contrast.py', '_base_/1800_iterations.py']

work_dir = 'work_dirs/swin_adn_letters'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmadn.ADNSwinTransformer',
        arch=dict(embed_dims=24, depths=[2, 2, 6, 2], num_heads=[1, 2, 4, 8]),
        img_size=48,
        patch_size=4,
        window_size=3,
        pad_small_map=True,
    ),
    head=dict(in_channels=192),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))

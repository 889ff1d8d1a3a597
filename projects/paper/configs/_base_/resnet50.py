# The same network without adaptive depth, which learns from the labels alone.
_base_ = 'resnet50_adn.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=50, stem_channels=16, base_channels=4, zero_init_residual=True
    )
)
custom_hooks = []
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)

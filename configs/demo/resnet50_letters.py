# The individual network: the same without adaptive depth.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_letters'
model = dict(backbone=dict(type='ResNet'))
custom_hooks = []
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)

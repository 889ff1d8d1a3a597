# The same network without adaptive depth, to see what skipping does to it.
_base_ = 'resnet50_adn_digits.py'

work_dir = 'work_dirs/demo_plain'
model = dict(backbone=dict(type='ResNet'))
custom_hooks = []
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))

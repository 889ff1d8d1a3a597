# The same detector at one depth: one pass an iteration, as many optimizer steps.
_base_ = 'mask_rcnn_r50adn_shapes.py'

work_dir = 'work_dirs/demo_det_super'
custom_hooks = []
model = dict(backbone=dict(type='mmpretrain.ResNet'))
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)

# The individual base-net: the mandatory blocks alone.
_base_ = 'mask_rcnn_r50_shapes.py'

work_dir = 'work_dirs/demo_det_base'
model = dict(backbone=dict(type='mmadn.ShortResNet', blocks=(2, 2, 3, 2)))

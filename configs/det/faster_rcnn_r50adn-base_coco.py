# The adaptive backbone trained for detection at one fixed depth, the base-net.
_base_ = 'faster_rcnn_r50adn_coco.py'

model = dict(backbone=dict(skip='base', fixed=True))
custom_hooks = []
val_cfg = dict(skips=['base'])
test_cfg = dict(skips=['base'])
default_hooks = dict(checkpoint=dict(save_best='TTTT/coco/bbox_mAP'))

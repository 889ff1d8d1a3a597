# The adaptive backbone trained for detection at one fixed depth, the super-net.
_base_ = 'faster_rcnn_r50adn_coco.py'

model = dict(backbone=dict(skip='super', fixed=True))
custom_hooks = []
val_cfg = dict(skips=['super'])
test_cfg = dict(skips=['super'])
default_hooks = dict(checkpoint=dict(save_best='FFFF/coco/bbox_mAP'))

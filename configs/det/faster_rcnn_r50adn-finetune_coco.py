# A trained stock detector becomes adaptive: mmdet's Faster R-CNN (37.4 box AP as published there) starts
# both copies of the norms, and a quarter of its schedule teaches it to be skipped. The statistics of the
# norms stay frozen as in stock, their scale and shift learn. Not a recipe of the paper, and nobody has
# trained it on COCO yet.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
model = dict(backbone=dict(type='mmadn.ADNResNet', init_cfg=None))
custom_hooks = [dict(type='mmadn.SelfDistillationHook')]
train_cfg = dict(max_epochs=3)
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', T_max=3, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(save_best='TTTT/coco/bbox_mAP', rule='greater'))

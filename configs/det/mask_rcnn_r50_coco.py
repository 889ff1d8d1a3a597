# The paper's result: 37.2 box AP, 34.1 mask AP. The individual network: a stock ResNet50 with frozen norms.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(requires_grad=False)))

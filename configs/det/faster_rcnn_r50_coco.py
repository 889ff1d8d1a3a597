# The paper's result: 36.4 box AP. The individual network: a stock ResNet50 with frozen norms.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(requires_grad=False)))

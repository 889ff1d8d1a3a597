# The paper's result: 36.4 box AP. The individual network: a stock ResNet50 with frozen norms.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(requires_grad=False)))

# 26 epochs, as in the training logs behind the paper's rows; the steps are those of torchvision's RetinaNet.
train_cfg = dict(max_epochs=26)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=26, by_epoch=True, milestones=[16, 22], gamma=0.1),
]

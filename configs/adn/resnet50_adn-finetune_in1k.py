# A stock network becomes adaptive: mmpretrain's ResNet50 (76.55 % top-1 as published there) starts both norm
# copies, and a tenth of the schedule, in which both depths learn from the labels, teaches it to be skipped.
# That, and a learning rate as high as that of a training from scratch, did best on drawn letters
# (docs/evidence). Not a recipe of the paper, and nobody has trained it on ImageNet yet.
_base_ = 'resnet50_adn_in1k.py'

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', labels=True),
    dict(type='mmadn.CalibrationHook'),
]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15)

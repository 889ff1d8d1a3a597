# The paper's accuracies: super-net FFFFF 72.5, base-net TTTTT 70.6 (top-1).
_base_ = [
    '../_base_/imagenet.py',
    'mmpretrain::_base_/models/mobilenet_v2_1x.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='mmadn.ADNMobileNetV2'),
    head=dict(type='mmadn.DropoutLinearClsHead', dropout_rate=0.2),
)

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(type='MultiStepLR', milestones=[150, 225, 285], gamma=0.1)
auto_scale_lr = dict(base_batch_size=256)  # 4 GPUs x 64

train_cfg = dict(by_epoch=True, max_epochs=300)
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', alpha=0.5),
    dict(type='mmadn.CalibrationHook'),  # the depths in between need it
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='TTTTT/accuracy/top1'))

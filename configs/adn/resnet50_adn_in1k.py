# The paper's accuracies: super-net FFFF 77.6, base-net TTTT 76.1 (top-1).
_base_ = [
    '../_base_/imagenet.py',
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/default_runtime.py',
]

# The published training starts as torchvision does: no residual branch is zero at first.
model = dict(backbone=dict(type='mmadn.ADNResNet', depth=50, zero_init_residual=False))

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(type='MultiStepLR', milestones=[60, 100, 140], gamma=0.1)
auto_scale_lr = dict(base_batch_size=256)  # 4 GPUs x 64

train_cfg = dict(by_epoch=True, max_epochs=150)
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', alpha=0.5),
    dict(type='mmadn.CalibrationHook'),  # the depths in between need it
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='TTTT/accuracy/top1'))

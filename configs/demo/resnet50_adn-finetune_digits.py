# Adapts the network of resnet50_digits.py, which must have been trained before; both depths learn from the
# labels.
_base_ = 'resnet50_adn_digits.py'

work_dir = 'work_dirs/demo_finetune'
load_from = 'work_dirs/demo_plain/epoch_36.pth'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', labels=True),
    dict(type='mmadn.CalibrationHook', num_images=256),
]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=6, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=6))

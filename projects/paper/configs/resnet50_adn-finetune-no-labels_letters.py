# Fine-tuning without labels for the base-net; the stock network teaches the super-net alone.
_base_ = 'resnet50_adn-finetune_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune-no-labels_letters'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', teacher={{_base_.teacher}}),
    dict(type='mmadn.CalibrationHook'),
]

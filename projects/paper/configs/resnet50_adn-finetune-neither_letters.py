# Fine-tuning as the paper trains: no teacher, and no labels for the base-net.
_base_ = 'resnet50_adn-finetune_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune-neither_letters'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook'),
    dict(type='mmadn.CalibrationHook'),
]

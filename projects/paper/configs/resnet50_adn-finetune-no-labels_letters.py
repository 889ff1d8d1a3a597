# Fine-tuning as the paper trains: the base-net learns from the super-net alone.
_base_ = 'resnet50_adn-finetune_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune-no-labels_letters'
custom_hooks = [dict(type='mmadn.SelfDistillationHook'), dict(type='mmadn.CalibrationHook')]

# Fine-tuning without a teacher; both depths learn from the labels.
_base_ = 'resnet50_adn-finetune_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune-no-teacher_letters'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', labels=True),
    dict(type='mmadn.CalibrationHook'),
]

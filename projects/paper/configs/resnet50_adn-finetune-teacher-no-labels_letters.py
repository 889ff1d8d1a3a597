# Fine-tuning in which the stock network teaches the super-net beside the labels, and that alone the base-net.
_base_ = 'resnet50_adn-finetune-teacher_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune-teacher-no-labels_letters'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', teacher={{_base_.teacher}}),
    dict(type='mmadn.CalibrationHook'),
]

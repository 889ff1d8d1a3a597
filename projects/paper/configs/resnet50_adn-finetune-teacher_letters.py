# Fine-tuning in which the stock network teaches both depths beside the labels.
_base_ = 'resnet50_adn-finetune_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune-teacher_letters'
teacher = dict(
    config='projects/paper/configs/resnet50-long_letters.py',
    checkpoint='{{$TEACHER:work_dirs/resnet50-long_letters/iter_3600.pth}}',
    weight=0.5,
    temperature=1.0,
)
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', labels=True, teacher=teacher),
    dict(type='mmadn.CalibrationHook'),
]

# A trained stock network becomes adaptive in a quarter of its training: it starts both copies of the norms
# and teaches both depths beside the labels. Which checkpoint of it, the environment variable TEACHER says;
# a study sets it to that of the same seed.
_base_ = ['_base_/resnet50_adn.py', '_base_/letters.py', '_base_/900_iterations.py']

work_dir = 'work_dirs/resnet50_adn-finetune_letters'
load_from = '{{$TEACHER:work_dirs/resnet50-long_letters/iter_3600.pth}}'
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
optim_wrapper = dict(optimizer=dict(lr=1e-2))

# A trained stock network becomes adaptive in a quarter of its training: it starts both copies of the norms,
# and both depths learn from the labels. Which checkpoint of it, the environment variable TEACHER says; a
# study sets it to that of the same seed.
_base_ = ['_base_/resnet50_adn.py', '_base_/letters.py', '_base_/900_iterations.py']

work_dir = 'work_dirs/resnet50_adn-finetune_letters'
load_from = '{{$TEACHER:work_dirs/resnet50-long_letters/iter_3600.pth}}'
custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', labels=True),
    dict(type='mmadn.CalibrationHook'),
]

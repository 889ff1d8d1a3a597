# Individually distilled, as in Fig. 4b: the whole network is the teacher. Which checkpoint of it, the
# environment variable TEACHER says; a study sets it to that of the same seed.
_base_ = 'resnet50-base-long_letters.py'

work_dir = 'work_dirs/resnet50-base-long_distilled_letters'
teacher = dict(
    config='projects/paper/configs/resnet50-long_letters.py',
    checkpoint='{{$TEACHER:work_dirs/resnet50-long_letters/iter_3600.pth}}',
    weight=0.5,
    temperature=1.0,
)
custom_hooks = [dict(type='mmadn.DistillationHook', teacher=teacher)]

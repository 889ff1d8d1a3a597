# Individually distilled, as in Fig. 4b: the whole network, of resnet50_letters.py, is the teacher.
_base_ = 'resnet50-base_letters.py'

work_dir = 'work_dirs/resnet50-base_distilled_letters'
teacher = dict(
    config='configs/demo/resnet50_letters.py',
    checkpoint='work_dirs/resnet50_letters/iter_1000.pth',
    weight=0.5,
    temperature=1.0,
)
custom_hooks = [dict(type='mmadn.DistillationHook', teacher=teacher)]

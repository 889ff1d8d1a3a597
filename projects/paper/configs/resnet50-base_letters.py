# The individual base-net: the mandatory blocks alone.
_base_ = 'resnet50_letters.py'

work_dir = 'work_dirs/resnet50-base_letters'
model = dict(backbone=dict(type='mmadn.ShortResNet', blocks=(2, 2, 3, 2)))

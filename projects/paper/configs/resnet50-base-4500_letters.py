# The individual base-net, trained as long as a stock network and its fine-tuning together.
_base_ = ['_base_/resnet50.py', '_base_/letters.py', '_base_/4500_iterations.py']

work_dir = 'work_dirs/resnet50-base-4500_letters'
model = dict(backbone=dict(type='mmadn.ShortResNet', blocks=(2, 2, 3, 2)))

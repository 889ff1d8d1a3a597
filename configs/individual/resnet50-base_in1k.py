# The paper's accuracy: 75.0 (top-1). Only the blocks that are mandatory in the adaptive network.
_base_ = 'resnet50_in1k.py'

model = dict(backbone=dict(type='mmadn.ShortResNet', blocks=(2, 2, 3, 2)))

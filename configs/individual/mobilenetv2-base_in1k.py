# The paper's accuracy: 70.2 (top-1). Only the blocks that are mandatory in the adaptive network.
_base_ = 'mobilenetv2_in1k.py'

model = dict(backbone=dict(type='mmadn.ShortMobileNetV2', blocks=(1, 1, 2, 2, 2, 2, 1)))

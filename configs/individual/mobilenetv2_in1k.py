# The paper's accuracy: 72.1 (top-1). An ordinary network, trained by the recipe of the adaptive one.
_base_ = '../adn/mobilenetv2_adn_in1k.py'

model = dict(backbone=dict(type='MobileNetV2'))
custom_hooks = []
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))

# The paper's accuracy: 81.1 (top-1). An ordinary network, trained by the recipe of the adaptive one.
_base_ = '../adn/vit_b16_adn_in1k.py'

model = dict(backbone=dict(type='VisionTransformer'))
custom_hooks = _base_.custom_hooks[1:]  # without self-distillation
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))

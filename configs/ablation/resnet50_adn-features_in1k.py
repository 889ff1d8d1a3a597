# Table 3: the stages' feature maps are distilled too.
_base_ = '../adn/resnet50_adn_in1k.py'

custom_hooks = [
    dict(type='mmadn.SelfDistillationHook', features=[f'backbone.layer{i}' for i in range(1, 5)]),
    _base_.custom_hooks[1],
]

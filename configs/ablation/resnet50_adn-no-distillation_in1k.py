# Table 3: without self-distillation; both depths learn from the labels.
_base_ = '../adn/resnet50_adn_in1k.py'

custom_hooks = [dict(type='mmadn.SelfDistillationHook', labels=True, logits=False), _base_.custom_hooks[1]]

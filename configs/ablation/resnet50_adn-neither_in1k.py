# Table 3: neither self-distillation nor skip-aware norms.
_base_ = '../adn/resnet50_adn_in1k.py'

model = dict(backbone=dict(skip_aware_norms=False))
custom_hooks = [dict(type='mmadn.SelfDistillationHook', labels=True, logits=False), _base_.custom_hooks[1]]

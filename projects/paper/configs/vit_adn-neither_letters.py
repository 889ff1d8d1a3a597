# Table 3: neither self-distillation nor skip-aware norms.
_base_ = 'vit_adn_letters.py'

work_dir = 'work_dirs/vit_adn-neither_letters'
model = dict(backbone=dict(skip_aware_norms=False))
custom_hooks = [dict(type='mmadn.SelfDistillationHook', labels=True, logits=False)]

# Table 3: without self-distillation; both depths learn from the labels.
_base_ = 'vit_adn_letters.py'

work_dir = 'work_dirs/vit_adn-no-distillation_letters'
custom_hooks = [dict(type='mmadn.SelfDistillationHook', labels=True, logits=False)]

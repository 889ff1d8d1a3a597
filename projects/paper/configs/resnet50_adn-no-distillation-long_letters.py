# Table 3, trained long: without self-distillation; both depths learn from the labels.
_base_ = 'resnet50_adn-long_letters.py'

work_dir = 'work_dirs/resnet50_adn-no-distillation-long_letters'
custom_hooks = [dict(type='mmadn.SelfDistillationHook', labels=True, logits=False)]

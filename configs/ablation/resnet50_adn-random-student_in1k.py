# Table 4: the student's depth is drawn anew in each iteration.
_base_ = '../adn/resnet50_adn_in1k.py'

custom_hooks = [dict(type='mmadn.SelfDistillationHook', depths=('super', 'random')), _base_.custom_hooks[1]]

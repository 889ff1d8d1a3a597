# Table 4: both depths are drawn anew in each iteration.
_base_ = '../adn/resnet50_adn_in1k.py'

custom_hooks = [dict(type='mmadn.SelfDistillationHook', depths=('random', 'random')), _base_.custom_hooks[1]]

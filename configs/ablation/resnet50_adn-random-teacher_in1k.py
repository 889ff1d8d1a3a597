# Table 4: the teacher's depth is drawn anew in each iteration.
_base_ = '../adn/resnet50_adn_in1k.py'

custom_hooks = [dict(type='mmadn.SelfDistillationHook', depths=('random', 'base')), _base_.custom_hooks[1]]

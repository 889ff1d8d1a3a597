# Table 4: both depths are drawn anew in each iteration.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_adn-random-both_letters'
custom_hooks = [dict(type='mmadn.SelfDistillationHook', depths=('random', 'random'))]

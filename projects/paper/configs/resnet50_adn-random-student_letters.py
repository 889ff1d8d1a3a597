# Table 4: the student's depth is drawn anew in each iteration.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_adn-random-student_letters'
custom_hooks = [dict(type='mmadn.SelfDistillationHook', depths=('super', 'random'))]

# Adapts a trained stock network; which checkpoint, the environment variable TEACHER says, and a study sets
# it to that of the same seed.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_adn-finetune_letters'
load_from = '{{$TEACHER:work_dirs/resnet50-long_letters/iter_3600.pth}}'
optim_wrapper = dict(optimizer=dict(lr=2e-3))

# The shortcuts' norms serve both depths, as in the published ResNets.
_base_ = 'resnet50_adn-long_letters.py'

work_dir = 'work_dirs/resnet50_adn-shared-shortcuts-long_letters'
model = dict(backbone=dict(skip_aware_norms=True))

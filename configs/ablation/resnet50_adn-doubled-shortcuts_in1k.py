# Not in the paper: the shortcuts' norms have two copies too; docs/evidence/README.md says why.
_base_ = '../adn/resnet50_adn_in1k.py'

model = dict(backbone=dict(skip_aware_norms='all'))

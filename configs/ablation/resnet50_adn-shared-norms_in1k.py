# Table 3: without skip-aware norms; one copy serves both depths.
_base_ = '../adn/resnet50_adn_in1k.py'

model = dict(backbone=dict(skip_aware_norms=False))

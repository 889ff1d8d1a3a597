# Table 3: without skip-aware norms; one copy serves both depths.
_base_ = 'vit_adn_letters.py'

work_dir = 'work_dirs/vit_adn-shared-norms_letters'
model = dict(backbone=dict(skip_aware_norms=False))

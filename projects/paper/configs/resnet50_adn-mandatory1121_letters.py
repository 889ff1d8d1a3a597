# Table 7 and Fig. 6b: fewer mandatory blocks.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_adn-mandatory1121_letters'
model = dict(backbone=dict(mandatory=(1, 1, 2, 1)))

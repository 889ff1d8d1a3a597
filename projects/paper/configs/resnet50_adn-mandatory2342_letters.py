# Table 7 and Fig. 6b: more mandatory blocks.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_adn-mandatory2342_letters'
model = dict(backbone=dict(mandatory=(2, 3, 4, 2)))

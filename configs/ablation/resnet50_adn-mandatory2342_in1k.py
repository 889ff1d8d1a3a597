# Table 7 and Fig. 6b: more mandatory blocks.
_base_ = '../adn/resnet50_adn_in1k.py'

model = dict(backbone=dict(mandatory=(2, 3, 4, 2)))

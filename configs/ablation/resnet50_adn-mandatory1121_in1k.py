# Table 7 and Fig. 6b: fewer mandatory blocks.
_base_ = '../adn/resnet50_adn_in1k.py'

model = dict(backbone=dict(mandatory=(1, 1, 2, 1)))

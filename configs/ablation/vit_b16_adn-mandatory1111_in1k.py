# Fig. 7: the last two blocks of each group are skippable.
_base_ = '../adn/vit_b16_adn_in1k.py'

model = dict(backbone=dict(mandatory=(1, 1, 1, 1)))

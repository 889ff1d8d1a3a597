# Fig. 7: the last two blocks of each group are skippable.
_base_ = 'vit_adn_letters.py'

work_dir = 'work_dirs/vit_adn-mandatory1111_letters'
model = dict(backbone=dict(mandatory=(1, 1, 1, 1)))

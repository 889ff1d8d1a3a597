# The published code has this network; the paper states neither a recipe nor an accuracy for it.
_base_ = 'resnet50_adn_in1k.py'

model = dict(backbone=dict(depth=18), head=dict(in_channels=512))

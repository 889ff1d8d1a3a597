# The paper has this network in its ablation only; the recipe is that of ViT-B/16.
_base_ = 'vit_b16_adn_in1k.py'

model = dict(backbone=dict(patch_size=32))

# The letters by their local contrast: see `LocalContrast`, without which networks of layer norms are still at
# chance after 700 iterations.
_base_ = 'letters.py'

custom_imports = dict(imports=['projects.paper.letters'])
pipeline = [dict(type='LoadImageFromFile'), dict(type='LocalContrast'), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))

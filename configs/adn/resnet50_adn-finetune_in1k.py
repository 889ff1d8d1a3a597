# A stock network becomes an adaptive one: mmpretrain's ResNet50 (76.55 % top-1 as published there) starts
# both norm copies, and a tenth of the schedule teaches it to be skipped. Not a recipe of the paper, and
# nobody has trained it on ImageNet yet: expect the super-net to keep its accuracy and the base-net to
# stay below one trained from scratch.
_base_ = 'resnet50_adn_in1k.py'

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', T_max=15, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(max_epochs=15)

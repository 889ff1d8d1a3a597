# Not in the paper: DINO by its stock recipe, whose encoder and decoder have a depth beside the backbone.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'

model = dict(type='mmadn.ADNDINO', backbone=dict(type='mmadn.ADNResNet'))
custom_hooks = [dict(type='mmadn.SelfDistillationHook')]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')

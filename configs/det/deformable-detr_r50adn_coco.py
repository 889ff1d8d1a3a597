# Not in the paper: Deformable DETR by its stock recipe, with a depth of the encoder and decoder too.
_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'

model = dict(type='mmadn.ADNDeformableDETR', backbone=dict(type='mmadn.ADNResNet'))
custom_hooks = [dict(type='mmadn.SelfDistillationHook')]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')

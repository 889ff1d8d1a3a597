# Not in the paper: RTMDet-Ins, with masks, by its stock recipe, trained by self-distillation.
_base_ = 'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'

model = dict(backbone=dict(type='mmadn.ADNCSPNeXt'))
custom_hooks = [*_base_.custom_hooks, dict(type='mmadn.SelfDistillationHook')]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')

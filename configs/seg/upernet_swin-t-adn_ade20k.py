# Not in the paper: UPerNet with Swin-T by its stock recipe, trained by self-distillation.
_base_ = 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(type='mmadn.ADNSwinTransformer'))
custom_hooks = [dict(type='mmadn.SelfDistillationHook')]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
default_hooks = dict(checkpoint=dict(save_best='TTTT/mIoU', rule='greater'))

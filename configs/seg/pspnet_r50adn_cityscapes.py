# Not in the paper: PSPNet by its stock recipe, trained by self-distillation.
_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'

model = dict(backbone=dict(type='mmadn.ADNResNetV1c'))
custom_hooks = [dict(type='mmadn.SelfDistillationHook')]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
default_hooks = dict(checkpoint=dict(save_best='TTTT/mIoU', rule='greater'))

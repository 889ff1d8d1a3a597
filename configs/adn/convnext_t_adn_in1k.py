# Not in the paper: mmpretrain's recipe for ConvNeXt-T (32 GPUs x 128), made adaptive.
_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'

data_root = 'data/imagenet'  # where the recipe looks already; --cfg-options changes it here
_folder = dict(_delete_=True, type='mmadn.ImageFolder', data_root=data_root, num_classes=1000)
train_dataloader = dict(dataset=dict(data_prefix='train', pipeline=_base_.train_pipeline, **_folder))
val_dataloader = dict(dataset=dict(data_prefix='val', pipeline=_base_.test_pipeline, **_folder))
test_dataloader = val_dataloader
model = dict(backbone=dict(type='mmadn.ADNConvNeXt'))
custom_hooks = [dict(type='mmadn.SelfDistillationHook', alpha=0.5), *_base_.custom_hooks]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='TTTT/accuracy/top1'))

# The individually distilled network of Fig. 4b: the whole network teaches the smaller one. Weight and
# temperature are ours, as the paper does not state them. Train resnet50_in1k.py before.
_base_ = 'resnet50-base_in1k.py'

teacher = dict(
    config='configs/individual/resnet50_in1k.py',
    checkpoint='work_dirs/resnet50_in1k/epoch_150.pth',
    weight=0.5,
    temperature=1.0,
)
custom_hooks = [dict(type='mmadn.DistillationHook', teacher=teacher)]

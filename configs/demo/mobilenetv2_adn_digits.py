_base_ = 'resnet50_adn_digits.py'

work_dir = 'work_dirs/mobilenetv2_adn_digits'
model = dict(
    backbone=dict(_delete_=True, type='mmadn.ADNMobileNetV2', widen_factor=0.5),
    head=dict(in_channels=1280),
)
default_hooks = dict(checkpoint=dict(save_best='TTTTT/accuracy/top1'))

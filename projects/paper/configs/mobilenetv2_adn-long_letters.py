_base_ = 'resnet50_adn-long_letters.py'

work_dir = 'work_dirs/mobilenetv2_adn-long_letters'
model = dict(
    backbone=dict(_delete_=True, type='mmadn.ADNMobileNetV2', widen_factor=0.25),
    head=dict(in_channels=1280),
)
val_cfg = dict(skips=['FFFFF', 'TTTTT'])

# The paper's result: 37.4 box AP at FFFF, 35.2 at TTTT.
_base_ = 'retinanet_r50_coco.py'

model = dict(
    backbone=dict(
        type='mmadn.ADNResNet',
        # Of configs/adn/resnet50_adn_in1k.py, trained here or converted: with both copies of the norms.
        init_cfg=dict(checkpoint='checkpoints/resnet50_adn_in1k.pth', prefix='backbone.'),
    )
)
custom_hooks = [dict(type='mmadn.SelfDistillationHook', alpha=0.5, levels='foreground')]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
default_hooks = dict(checkpoint=dict(save_best='TTTT/coco/bbox_mAP', rule='greater'))

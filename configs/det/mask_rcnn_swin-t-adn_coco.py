# Not in the paper: Swin-T by its stock recipe, trained by self-distillation.
_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        type='mmadn.ADNSwinTransformer',
        convert_weights=False,  # they have the names of OpenMMLab
        # Of configs/adn/swin_t_adn_in1k.py, trained here or converted: with both copies of the norms.
        init_cfg=dict(checkpoint='checkpoints/swin_t_adn_in1k.pth'),
    )
)
custom_hooks = [dict(type='mmadn.SelfDistillationHook', alpha=0.5)]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
default_hooks = dict(checkpoint=dict(save_best='TTTT/coco/bbox_mAP', rule='greater'))

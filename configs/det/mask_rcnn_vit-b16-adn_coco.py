# Not in the paper: a plain ViT-B/16 with global attention and a simple feature pyramid.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmadn.ADNVisionTransformer',
        arch='base',
        img_size=1024,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='featmap',
        # Of configs/adn/vit_b16_adn_in1k.py, trained here or converted: with both copies of the norms.
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit_b16_adn_in1k.pth', prefix='backbone.'),
    ),
    neck=dict(_delete_=True, type='mmadn.SimpleFPN', in_channels=768, out_channels=256),
)
custom_hooks = [dict(type='mmadn.SelfDistillationHook', alpha=0.5)]
val_cfg = dict(type='mmadn.SubnetValLoop')
test_cfg = dict(type='mmadn.SubnetTestLoop')
default_hooks = dict(checkpoint=dict(save_best='TTTT/coco/bbox_mAP', rule='greater'))
optim_wrapper = dict(
    clip_grad=dict(max_norm=1.0),
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(pos_embed=dict(decay_mult=0.0))),
)

# A narrow DINO on ResNet50-ADN, whose encoder and decoder have a depth too, on the drawn shapes.
_base_ = 'faster_rcnn_r50adn_shapes.py'

work_dir = 'work_dirs/demo_det_dino'
custom_hooks = [dict(type='mmadn.SelfDistillationHook'), dict(type='mmadn.CalibrationHook', num_images=256)]
attention = dict(embed_dims=64, num_heads=4, dropout=0.0)
deformable = dict(embed_dims=64, num_levels=3, num_heads=4, num_points=2, dropout=0.0)
ffn = dict(embed_dims=64, feedforward_channels=128, ffn_drop=0.0)
model = dict(
    _delete_=True,
    type='mmadn.ADNDINO',
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone=dict(
        type='mmadn.ADNResNet',
        depth=50,
        stem_channels=32,
        base_channels=16,
        out_indices=(1, 2, 3),
        norm_eval=False,
        zero_init_residual=False,
    ),
    neck=dict(
        type='ChannelMapper',
        in_channels=[128, 256, 512],
        kernel_size=1,
        out_channels=64,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=8),
        num_outs=3,
    ),
    num_queries=30,
    num_feature_levels=3,
    with_box_refine=True,
    as_two_stage=True,
    encoder=dict(num_layers=4, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=4,
        return_intermediate=True,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
        post_norm_cfg=None,
    ),
    positional_encoding=dict(num_feats=32, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type='DINOHead',
        num_classes=4,
        embed_dims=64,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=20),
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))

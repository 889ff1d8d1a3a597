# A narrow RTMDet on CSPNeXt with adaptive depth, on the drawn shapes.
_base_ = 'faster_rcnn_r50adn_shapes.py'

work_dir = 'work_dirs/demo_det_rtmdet'
custom_hooks = [dict(type='mmadn.SelfDistillationHook'), dict(type='mmadn.CalibrationHook', num_images=256)]
model = dict(
    _delete_=True,
    type='RTMDet',
    data_preprocessor={{_base_.model.data_preprocessor}},
    # A quarter of the channels of RTMDet-l, without its last stage, whose blocks are not residual.
    backbone=dict(
        type='mmadn.ADNCSPNeXt',
        arch_ovewrite=[[64, 128, 3, True, False], [128, 256, 6, True, False], [256, 512, 6, True, False]],
        widen_factor=0.25,
        out_indices=(1, 2, 3),
    ),
    neck=dict(
        type='CSPNeXtPAFPN', in_channels=[32, 64, 128], out_channels=64, num_csp_blocks=1, expand_ratio=0.5
    ),
    bbox_head=dict(
        type='RTMDetSepBNHead',
        num_classes=4,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        share_conv=True,
        pred_kernel_size=1,
        with_objectness=False,
        exp_on_reg=False,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[4, 8, 16]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=256, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20),
)

# Mask R-CNN without its masks.
_base_ = 'mask_rcnn_r50adn_shapes.py'

work_dir = 'work_dirs/demo_det_faster_rcnn'
model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
val_evaluator = dict(metric='bbox')
test_evaluator = dict(metric='bbox')

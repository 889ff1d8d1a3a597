# The paper's result: 32.4 box AP. Only the blocks that are mandatory in the adaptive network.
_base_ = 'faster_rcnn_r50_coco.py'

model = dict(
    backbone=dict(
        type='mmadn.ShortResNet',
        blocks=(2, 2, 3, 2),
        # Of configs/individual/resnet50-base_in1k.py, trained here.
        init_cfg=dict(checkpoint='checkpoints/resnet50-base_in1k.pth', prefix='backbone.'),
    )
)

"""Mask R-CNN on drawn shapes: an adaptive detector, one without the KL term, and individual ones."""

from functools import partial

from ..shapes import write_shapes
from ..study import Run, Study

ADAPTIVE = 'configs/demo/mask_rcnn_r50adn_shapes.py'

STUDY = Study(
    runs={
        'adaptive': Run(ADAPTIVE),
        'adaptive, without KL': Run('configs/demo/mask_rcnn_r50adn-no-kl_shapes.py'),
        # Tested as an adaptive network, whose norms then all serve both depths: what skipping gives without
        # any training for it.
        'individual, full': Run('configs/demo/mask_rcnn_r50_shapes.py', test_config=ADAPTIVE),
        'individual, -base': Run('configs/demo/mask_rcnn_r50-base_shapes.py'),
    },
    skips=('FFFF', 'TTTT'),
    metrics={'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'},
    prepare=partial(write_shapes, 'data/shapes'),
)

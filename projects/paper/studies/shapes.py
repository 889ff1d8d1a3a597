"""Real-time detection and segmentation of drawn shapes, each beside individual networks of three depths."""

from functools import partial

from ..shapes import write_shapes
from ..study import Run, Study


def _beside_individual(config: str, depths: tuple[str, ...], metrics: dict[str, str]) -> Study:
    """An adaptive network at all its depths, and networks that have one of some depths alone."""
    return Study(
        runs={
            'adaptive': Run(config),
            **{f'individual {depth}': Run(config, alone=depth) for depth in depths},
        },
        skips=None,
        shown=depths,
        metrics=metrics,
        prepare=partial(write_shapes, 'data/shapes'),
    )


RTMDET = _beside_individual(
    'configs/demo/rtmdet_adn_shapes.py', ('FFF', 'TTF', 'TTT'), {'coco/bbox_mAP': 'box AP'}
)
PSPNET = _beside_individual(
    'configs/demo/pspnet_r50adn_shapes.py', ('FFFF', 'TTFF', 'TTTT'), {'mIoU': 'mIoU (%)'}
)

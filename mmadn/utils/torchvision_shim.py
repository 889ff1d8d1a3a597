"""Lets torchvision be imported where its compiled operators do not load.

A torchvision built for CUDA beside a CPU-only torch fails on import with "operator torchvision::nms does
not exist", because it describes two of its compiled operators to torch. With the signatures of these two
declared, the import succeeds and everything written in Python works: transforms, models, datasets, which
is all that mmpretrain and mmdet ask of it. Where the operators do load, this module changes nothing.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if 'torchvision::nms' not in str(error):
        raise
    LIBRARY = torch.library.Library('torchvision', 'DEF')  # kept: torch forgets the schemas with it
    LIBRARY.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    LIBRARY.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import torchvision  # noqa: F401

# Lets torchvision be imported where its compiled operators do not load; import or load this file first.
#
# A torchvision built for CUDA beside a CPU-only torch fails on import with "operator torchvision::nms does
# not exist", because it describes two of its compiled operators to torch. With the signatures of these two
# declared, the import succeeds and everything written in Python works: transforms, models, datasets, which
# is all that mmpretrain and mmdet ask of it. Where the operators do load, nothing changes.
#
# Extracted networks begin with this text, where it was needed when they were written. In a config of mmengine
# a name with two underscores is no setting, and an import statement would make a config of another kind.
import importlib

try:
    importlib.import_module('torchvision')
except RuntimeError as __error:
    if 'torchvision::nms' not in str(__error):
        raise
    __torch = importlib.import_module('torch')
    # Kept there, because torch forgets the signatures with the library.
    __library = __torch.library.torchvision_signatures = __torch.library.Library('torchvision', 'DEF')
    for __name in ('nms', 'qnms'):
        __library.define(f'{__name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    importlib.import_module('torchvision')

import torch

from mmadn.engine.shared_prefixes import shared_prefixes
from mmadn.evaluation.prediction import precision

from ..networks import classifiers
from ..protocol import Contestant, Ratio, Settings, compete, contest

TARGETS = {'resnet50': 0.42, 'mobilenet_v2': 0.45}
SEPARATE, SHARED = 'one run a depth', 'shared prefixes'


@contest('evaluation at all depths', rounds=10, batch=8, takes=('dtype', 'channels_last'))
def prefixes(settings: Settings) -> dict:
    """All sub-networks of one batch, with shared prefixes and without.

    Data loading and preprocessing are no part of it.

    Returns:
        As from `inference`.

    Raises:
        RuntimeError: The two do not agree bit by bit.
    """
    net = classifiers(settings.arch, settings.device, memory_format=settings.memory_format)['adn']
    net.eval()
    x = settings.images()

    def separate():
        outputs = []
        for skip in net.backbone.subnets():
            net.backbone.set_skip(skip)
            outputs.append(net(x))
        return outputs

    def shared():
        with shared_prefixes(net.backbone):
            return separate()

    ratio = Ratio(SHARED, (SEPARATE,), TARGETS.get(settings.arch, 1.0))
    contestants = [
        Contestant(SEPARATE, separate, kind='every depth runs whole'),
        Contestant(SHARED, shared, kind='what depths have in common runs once'),
    ]
    with precision(settings.device, settings.dtype):
        if not all(map(torch.equal, separate(), shared())):
            raise RuntimeError(f'{SHARED} and {SEPARATE} differ')
        return compete('prefixes', settings, contestants, [ratio])

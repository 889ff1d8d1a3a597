from itertools import combinations

import numpy as np

from mmadn.evaluation.flops import complexity

from ..networks import classifiers
from ..protocol import Contestant, Ratio, Settings, compete, contest


@contest('forward pass', rounds=40, batch=1, takes=('dtype', 'channels_last'))
def depths(settings: Settings) -> dict:
    """Latency of a forward pass at every depth, beside its FLOPs.

    As in `inference`, every timed forward follows an untimed one at the same depth.

    Returns:
        As from `inference`, with `gflops` of an image in addition. Of all pairs of depths, the one in which
        the depth of fewer FLOPs is slowest beside the other has a target.
    """
    net = classifiers(settings.arch, settings.device, memory_format=settings.memory_format)['adn']
    net.eval()
    x = settings.images()
    backbone = net.backbone

    def at(skip):
        backbone.set_skip(skip)
        return net(x)

    names, gflops = backbone.subnets(), {}
    for skip in names:
        with backbone.skipping(skip):
            gflops[skip] = complexity(net, x[:1])['gflops']

    def ratios(times):
        pairs = [(a, b) for a, b in combinations(sorted(names, key=gflops.get), 2) if gflops[a] < gflops[b]]
        worst = max(pairs, key=lambda pair: np.median(Ratio(pair[0], pair[1:], 1.05).rounds(times)))
        deep, shallow = names[0], names[-1]
        bound = 1.15 * gflops[shallow] / gflops[deep]
        return [Ratio(shallow, (deep,), bound), Ratio(worst[0], worst[1:], 1.05)]

    contestants = [Contestant(skip, lambda: net(x), lambda skip=skip: at(skip)) for skip in names]
    with settings.inference():
        out = compete('depths', settings, contestants, ratios)
    return {**out, 'gflops': gflops}

import torch

from mmadn.deploy.compiling import compile
from mmadn.evaluation.flops import complexity

from ..networks import classifiers
from ..protocol import Contestant, Gain, Ratio, Settings, compete, contest


@contest('forward pass, eager and compiled', rounds=40, batch=1)
def compiled(settings: Settings) -> dict:
    """What torch.compile gains with adaptive depth, and what it gains with the stock network.

    The stock network is compiled whole, adaptive depth by `mmadn.deploy.compiling`; on a CPU both with
    frozen weights, on a GPU both as CUDA graphs. As in `inference`, every timed forward follows an
    untimed one at the same depth.

    Returns:
        As from `inference`, with `graphs` in addition: how many `deploy.compile` made, and how
        many were made after that, in the contest and by every other depth.
    """
    from torch._dynamo.utils import counters  # takes seconds
    from torch._inductor import config

    nets, fast = (classifiers(settings.arch, settings.device, share=True) for _ in range(2))
    for net in (*nets.values(), *fast.values()):
        net.eval()
    x = settings.images()
    freezing = settings.device == 'cpu'
    options = {} if freezing else dict(mode='reduce-overhead')
    with torch.no_grad():
        with config.patch(freezing=freezing):
            fast['full'].forward = torch.compile(fast['full'].forward, dynamic=False, **options)
            fast['full'](x)
        before = counters['stats']['unique_graphs']
        compile(fast['adn'], x, freezing, **options)
        made = counters['stats']['unique_graphs']

        def at(net, skip):
            net.backbone.set_skip(skip)
            return net(x)

        def contestant(name, net, skip, kind):
            return Contestant(name, lambda: net(x), lambda: at(net, skip), kind)

        stock, eager = 'stock network', 'adaptive depth'
        deep, shallow = (nets['adn'].backbone.parse_skip(skip) for skip in ('super', 'base'))
        gflops = {}
        for skip in (deep, shallow):
            with nets['adn'].backbone.skipping(skip):
                gflops[skip] = complexity(nets['adn'], x[:1])['gflops']
        contestants = [
            Contestant('stock', lambda: nets['full'](x), lambda: nets['full'](x), stock),
            contestant(f'ADN {deep}', nets['adn'], deep, eager),
            contestant(f'compiled {deep}', fast['adn'], deep, f'{eager}, compiled'),
            contestant(f'ADN {shallow}', nets['adn'], shallow, eager),
            contestant(f'compiled {shallow}', fast['adn'], shallow, f'{eager}, compiled'),
            Contestant(
                'compiled stock', lambda: fast['full'](x), lambda: fast['full'](x), f'{stock}, compiled'
            ),
        ]
        ratios = [
            Gain((f'ADN {skip}', f'compiled {skip}'), ('stock', 'compiled stock'), 0.92)
            for skip in (deep, shallow)
        ]
        bound = 1.08 * gflops[shallow] / gflops[deep]
        ratios.append(Ratio(f'compiled {shallow}', (f'compiled {deep}',), bound))
        out = compete('compiled', settings, contestants, ratios)
        for skip in fast['adn'].backbone.subnets():
            at(fast['adn'], skip)
    later = counters['stats']['unique_graphs'] - made
    return {**out, 'graphs': {'compiled': made - before, 'later': later}}

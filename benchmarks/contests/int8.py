import tempfile
from pathlib import Path

import torch

from ..networks import classifiers
from ..protocol import Ratio, Settings, compete, contest, with_target
from .onnx import pair, vary
from .providers import check_started, execution_provider


@contest('files in eight bits', rounds=30, batch=1, takes=('provider',))
def int8(settings: Settings) -> dict:
    """Latency in onnxruntime: files in eight bits against files in float, of all depths and of one.

    The ranges are those of random images, and the weights are random too: what it costs in accuracy is
    measured elsewhere.

    Returns:
        As from `inference`, with `bytes`, the sizes of the files.

    Raises:
        ValueError: onnxruntime cannot compute so, see `execution_provider`.
    """
    from mmadn.deploy.onnx.export import export_onnx
    from mmadn.deploy.onnx.session import AdaptiveSession, open_session

    provider = execution_provider(settings)
    model = classifiers(settings.arch)['adn'].eval()
    vary(model)
    shape, threads = tuple(settings.shape), torch.get_num_threads()
    ends = [model.backbone.parse_skip(end) for end in ('super', 'base')]
    images = torch.randn(settings.batch, *shape).numpy()
    ranges = [torch.randn(8, *shape) for _ in range(4)]
    sizes, contestants, ratios = {}, [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'net.onnx'
        for kind, bits in {'float': None, 'int8': ranges}.items():
            export_onnx(model, path, shape, adaptive=True, int8=bits)
            sizes[f'adaptive {kind}'] = path.stat().st_size
            adaptive = AdaptiveSession(path, [provider], threads)
            check_started(adaptive.session, provider[0])
            for skip in ends:
                print(f'{kind} export of {skip}', flush=True)
                export_onnx(model, path, shape, skip, int8=bits)
                sizes[f'fixed {skip} {kind}'] = path.stat().st_size
                fixed = open_session(path, [provider], threads)

                contestants += pair(adaptive, fixed, images, skip, f' {kind}')
    for skip in ends:
        ratios += [
            Ratio(f'adaptive {skip} int8', (f'adaptive {skip} float',), 1 / 2.8),
            Ratio(f'adaptive {skip} int8', (f'fixed {skip} int8',), 1.05),
        ]
    out = compete('int8', settings, contestants, ratios)
    out['bytes'] = sizes
    size = sizes['adaptive int8'] / sizes['adaptive float']
    out['ratios']['size, adaptive int8 / adaptive float'] = with_target([size], 0.30)
    return out

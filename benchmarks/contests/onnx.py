import tempfile
from pathlib import Path

import numpy as np
import torch

from mmadn.depth import PathNorm, SkipAwareNorm
from mmadn.engine.calibration import calibration_depths
from mmadn.evaluation.flops import complexity

from ..networks import classifiers
from ..protocol import Contestant, Ratio, Settings, compete, contest, with_target
from .providers import check_started, execution_provider


@contest('adaptive ONNX file', rounds=30, batch=1, takes=('provider',))
def onnx(settings: Settings) -> dict:
    """Latency in onnxruntime: one file of all depths against files of one.

    There are files of those depths that show all that an adaptive file can choose from. Every timed run
    follows an untimed one of the same file at the same depth. Threads do not spin while they wait, or the
    sessions would disturb each other. On a GPU the images come from the memory of the processor, and what is
    computed goes back there.

    Returns:
        As from `inference`, with `difference`, the largest one to torch of all depths in standard
        deviations of the logits, and `bytes`, the sizes of the files.

    Raises:
        ValueError: onnxruntime cannot compute so, see `execution_provider`.
    """
    from mmadn.deploy.onnx.export import export_onnx
    from mmadn.deploy.onnx.session import AdaptiveSession, open_session

    provider = execution_provider(settings)
    model = classifiers(settings.arch)['adn'].eval()
    vary(model)
    backbone, shape = model.backbone, tuple(settings.shape)
    skips, fixed_depths = backbone.subnets(), calibration_depths(backbone)
    images = torch.randn(settings.batch, *shape).numpy()
    threads = torch.get_num_threads()
    sizes, contestants = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'adaptive.onnx'
        rows = export_onnx(model, path, shape, adaptive=True)
        sizes['adaptive'] = path.stat().st_size
        adaptive = AdaptiveSession(path, [provider], threads)
        check_started(adaptive.session, provider[0])
        for skip in skips:
            if skip not in fixed_depths:
                contestants.append(of_adaptive(adaptive, images, skip))
                continue
            print(f'fixed export of {skip}', flush=True)
            path = Path(folder) / 'fixed.onnx'
            export_onnx(model, path, shape, skip)
            sizes[f'fixed {skip}'] = path.stat().st_size
            fixed = open_session(path, [provider], threads)

            contestants += pair(adaptive, fixed, images, skip)
    deep, shallow = skips[0], skips[-1]
    gflops = {}
    for skip in (deep, shallow):
        with backbone.skipping(skip):
            gflops[skip] = complexity(model, torch.zeros(1, *shape))['gflops']
    ratios = [
        *(Ratio(f'adaptive {skip}', (f'fixed {skip}',), 1.05) for skip in fixed_depths),
        Ratio(f'adaptive {shallow}', (f'adaptive {deep}',), 1.08 * gflops[shallow] / gflops[deep]),
    ]
    out = compete('onnx', settings, contestants, ratios)
    out.update(difference=max(row['relative'] for row in rows), bytes=sizes)
    out['ratios'][f'size, adaptive / fixed {deep}'] = with_target(
        [sizes['adaptive'] / sizes[f'fixed {deep}']], 1.02
    )
    return out


def of_adaptive(adaptive, images: np.ndarray, skip: str, kind: str = '') -> Contestant:
    """The session of a file of all depths, at one of them."""

    def run():
        return adaptive.run(images, skip)

    return Contestant(f'adaptive {skip}{kind}', run, run)


def pair(adaptive, fixed, images: np.ndarray, skip: str, kind: str = '') -> list[Contestant]:
    """The same, and the session of the file of this depth alone."""

    def run():
        return fixed.run(None, {'images': images})

    return [
        Contestant(f'fixed {skip}{kind}', run, run, 'a file of this depth alone'),
        of_adaptive(adaptive, images, skip, kind),
    ]


def vary(model: torch.nn.Module) -> None:
    """Makes all copies of every norm differ, as after training and calibration, and fills what is zero."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if not weight.any():  # a head of zeros would hide every difference
            weight.data.normal_(0, 0.02, generator=generator)
    for module in model.modules():
        if isinstance(module, PathNorm):
            copies = [*module.buffers(recurse=False)]  # calibrated, each pair of flags has its statistics
            module.calibrated = bool(copies)
            if isinstance(module, SkipAwareNorm):
                copies += module.skip.state_dict().values()
            for tensor in copies:
                if tensor.is_floating_point():
                    tensor.mul_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.9)
                    tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.05)

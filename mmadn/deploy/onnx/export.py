"""Export to ONNX: one sub-network, or one file whose depth is an input; compared with torch."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ...checkpoint.files import load_model
from ...depth import AdaptiveDepth, PathNorm, SwitchableDepth, adaptive_backbone, depth_of, unwrap
from ...depth_names import Skip
from ...engine.calibration import calibration_depths, training_images
from ...errors import FailedError, InputError, MissingPackageError, NotAdaptiveError
from ...evaluation.flops import default_shape
from ...utils.report import cells, replacing
from ...version import __version__
from ..fusing import SkipAwareConv

try:
    import onnx

    from .comparing import Progress, at_depth, compare_outputs, compare_quantised, quiet, runner
    from .joining import join
    from .pipeline import describe_outputs, describe_preprocessing
    from .quantising import check_batches, check_number, quantise
    from .tracing import LIMIT, is_segmentor, trace
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f'an export needs packages that mmadn does without ({error}): pip install onnx onnxscript onnxruntime'
    ) from error

# By the name of the first.
OUTPUTS = {'logits': 'logits', 'dets': 'detections', 'seg_logits': 'logits of pixels'}
MOST = 32  # depths that an export compares with torch; of more, those that show each flag by itself


def export_onnx(
    model: nn.Module,
    path: str | PathLike,
    shape: Sequence[int] = (3, 224, 224),
    skip: Skip | None = None,
    adaptive: bool = False,
    dynamic: bool | None = None,
    opset: int | None = None,
    features: bool = False,
    cfg: Config | None = None,
    int8: Iterable[Tensor] | None = None,
    progress: Progress = quiet,
) -> list[dict]:
    """Writes a network as ONNX, after the file has passed onnx's checker and agreed with torch.

    The input `images` is what the backbone gets: float32 of shape (N, 3, H, W), normalised. Its N is
    free. An adaptive file has a second input `skip`, a bool for each stage, and computes nothing of what
    is skipped. The output is `logits` of a classifier, before any softmax. The file says about itself
    what `describe` reads.

    A detector of mmdet is exported whole. It has an input `sizes`, int64 of shape (N, 2), the height and
    width of each image without its padding, and the outputs `dets`, float32 of shape (N, D, 5), corners
    x1 y1 x2 y2 in pixels of the input and the score; `labels`, int64 of shape (N, D), -1 where there is
    no detection; and of some `masks`, float32 of shape (N, D, h, w), probabilities for `paste_masks`. The
    least score is an input `score_thr` that need not be given. Of any other model backbone and neck are
    exported, and the outputs are their feature maps, `feature_0` and on.

    Args:
        model: A classifier or detector; any network with `backbone` and maybe `neck`.
        path: The file, which appears whole or not at all.
        shape: Channels, height and width of an image.
        skip: The depth of a fixed file. By default the present one.
        adaptive: One file with all depths.
        dynamic: Whether height and width are free too. By default they are, but not of a segmentor, or with a
            backbone that is made for one size of images, as transformers are.
        opset: Of ONNX, 18 or newer; by default torch's choice.
        features: Of a detector or segmentor, the feature maps alone.
        cfg: The config of the model. From the pipeline of its test data the file learns how an
            `AdaptiveSession` preprocesses images.
        int8: Batches of images as the network gets them, of shape (N, 3, H, W), 32 images or more. With them
            the file computes in eight bits, but for the heads of a detector, which stay in float. For a file
            of one size they are resized to it.
        progress: Takes a line when a step begins, of which some take minutes.

    Returns:
        For each depth compared with torch `skip` (None for a network without), `difference`, the largest
        one, and `relative`, the same in standard deviations of the output in which it is; of an output
        that is constant it is the difference itself. Of a whole detector what `compare_detections` gives,
        and in eight bits what `compare_quantised` gives.

    Raises:
        ValueError: `skip`, `shape` or `opset` does not fit, or two choices contradict each other.
        TypeError: The network has no adaptive depth and a choice needs it, or has no backbone.
        OSError: The file cannot be written.
        RuntimeError: The network cannot be exported, or the file would compute something else, or the network
            itself computes NaN or infinity.
    """
    model = unwrap(model)
    skips = _depths(model, skip, adaptive, features)
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise InputError(f'shape={tuple(shape)}: give channels, height and width')
    if opset is not None and not 18 <= opset <= onnx.defs.onnx_opset_version():
        raise InputError(f'opset={opset}: give 18 to {onnx.defs.onnx_opset_version()}')
    if Path(path).is_dir():
        raise IsADirectoryError(f'{path} is a folder; give the name of a file')
    if dynamic is None:
        dynamic = not hasattr(model.backbone, 'patch_resolution') and (features or not is_segmentor(model))
    whole = _is_detector(model) and not features
    batches = None if int8 is None else check_batches(int8, None if dynamic else shape[1:])
    if whole:  # mmdet is needed by detectors alone
        from .detections import compare_detections
        from .whole import append_heads, check_detector, trace_at_depths

        check_detector(model)
    with replacing(path) as temporary, _for_export(model, features), at_depth(model, skips[0]):
        temporary.touch()  # what cannot be written is known before minutes of work
        # First, because what cannot be exported fails here.
        beside = _stages_beside(model) if adaptive and whole else 0
        heads = trace_at_depths(model, shape, dynamic, opset, beside, progress) if whole else None
        several = adaptive and isinstance(model.backbone, AdaptiveDepth)
        export = _adaptive if several else _fixed
        exported = export(model, shape, dynamic, opset, batches, progress)
        if beside:
            _take_flags(exported, model.num_skippable_stages)
        lost, maps = [{}] * len(skips), None
        if batches:
            onnx.save(exported, temporary)
            lost = compare_quantised(model, temporary, batches, skips, adaptive, progress)
            maps = runner(temporary, adaptive)
        if whole:
            append_heads(exported, heads, model)
        _write_description(exported, model, skips[0], adaptive, cfg, batches)
        if exported.ByteSize() >= LIMIT:
            raise FailedError(f'{exported.ByteSize() / 2**30:.1f} GiB are more than an ONNX file can hold')
        onnx.save(exported, temporary)
        onnx.checker.check_model(temporary, full_check=True)
        compared = model, temporary, shape, skips, dynamic, adaptive
        if whole:
            rows = compare_detections(*compared, maps, progress)
            return [first | second for first, second in zip(lost, rows, strict=True)]
        return lost if batches else compare_outputs(*compared, progress)


def export_file(
    cfg: Config,
    checkpoint: str | PathLike,
    path: str | PathLike,
    shape: Sequence[int] | None = None,
    int8: int | None = None,
    **kwargs,
) -> list[dict]:
    """`export_onnx` of the network of a config and a checkpoint.

    Args:
        cfg: Of a classifier or detector.
        checkpoint: The weights of its model.
        path, **kwargs: See `export_onnx`.
        shape: Channels, height and width of an image; by default what the config tests with.
        int8: How many images of the config's training data give the ranges of eight bits.

    Raises:
        ValueError: The file is no checkpoint, or one of another network; and what `export_onnx` raises.
    """
    model = load_model(cfg, checkpoint)
    if int8 is not None:
        if not cfg.get('train_dataloader'):
            raise InputError('int8: the config has no train_dataloader, whose images give the ranges')
        check_number(int8)
        loader = training_images(cfg, int8)
        kwargs['int8'] = (model.data_preprocessor(batch, False)['inputs'] for batch in loader)
    return export_onnx(model, path, shape or default_shape(cfg), cfg=cfg, **kwargs)


def table(rows: list[dict]) -> list[dict]:
    """What `export_onnx` gives, as text."""
    columns = {
        'skip': ('skip', ''),
        'difference': ('largest difference to torch', '.1e'),
        'relative': ('in standard deviations', '.1e'),
        'lost': ('lost by int8, in standard deviations', '.3f'),
        'same': ('same class (%)', '.1f'),
        'detections': ('detections', 'd'),
        'missing': ('in one of both alone', 'd'),
        'corners': ('corners (pixels)', '.1e'),
        'score': ('score', '.1e'),
        'pixels': ('pixels of masks', '.1e'),
    }
    return cells(rows, columns)


def _is_detector(model: nn.Module) -> bool:
    """Whether a model is one of mmdet's, which need not be installed."""
    return any(base.__module__ == 'mmdet.models.detectors.base' for base in type(model).__mro__)


def _depths(model: nn.Module, skip: Skip | None, adaptive: bool, features: bool) -> list[str | None]:
    """The depths at which a file is compared with torch; None for a network without."""
    if adaptive and skip is not None:
        raise InputError(
            f'skip={skip!r} and adaptive=True: an adaptive file has all depths, give one of both'
        )
    if adaptive or skip is not None:
        depth_of(model)
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        raise NotAdaptiveError(f'{type(model).__name__} has no backbone; give a classifier or detector')
    depth = model if isinstance(model, SwitchableDepth) and not features else backbone
    if not isinstance(depth, SwitchableDepth):
        return [None]
    if not adaptive:
        return [depth.skip if skip is None else depth.parse_skip(skip)]
    if depth is model and (not _is_detector(model) or any(name.startswith('neck') for name in model.parts)):
        raise InputError(
            'adaptive=True: a file has the depths of the backbone and of the heads of a detector, and '
            f'{type(model).__name__} has {", ".join(model.parts)}; give features=True (--features), or one '
            f'depth, skip={model.skip!r}'
        )
    n = depth.num_skippable_stages
    if 2**n <= MOST:
        return depth.subnets()
    one_flag = [a * i + b + a * (n - i - 1) for a, b in ('FT', 'TF') for i in range(n)]
    return ['F' * n, *one_flag, 'T' * n]


def _stages_beside(model: nn.Module) -> int:
    """How many skippable stages the parts of a model have that are not its backbone."""
    if not isinstance(model, SwitchableDepth):
        return 0
    return sum(length for name, length in model.part_lengths.items() if name != 'backbone')


def _take_flags(exported: onnx.ModelProto, number: int) -> None:
    """Gives a file the input `skip` with so many flags; those of the backbone are the first."""
    inputs = exported.graph.input
    for value in [value for value in inputs if value.name == 'skip']:
        inputs.remove(value)
    inputs.append(onnx.helper.make_tensor_value_info('skip', onnx.TensorProto.BOOL, [number]))


def _fixed(
    model: nn.Module,
    shape: Sequence[int],
    dynamic: bool,
    opset: int | None,
    int8: list[np.ndarray] | None,
    progress: Progress,
) -> onnx.ModelProto:
    progress('exporting')
    exported = trace(model, shape, dynamic, opset)
    if int8:
        progress('computing in eight bits')
        exported = quantise({'': exported}, int8)['']
    return exported.model


def _adaptive(
    model: nn.Module,
    shape: Sequence[int],
    dynamic: bool,
    opset: int | None,
    int8: list[np.ndarray] | None,
    progress: Progress,
) -> onnx.ModelProto:
    backbone = adaptive_backbone(model)
    stages = [[*mandatory, *skippable] for mandatory, skippable in backbone.sub_paths(None)]
    # Ranges of eight bits depend on the stage before, as calibrated norms do.
    follows = [i > 0 and (bool(int8) or any(map(_follows_stage_before, s))) for i, s in enumerate(stages)]
    # The first two depths show each stage skipped and run, and all four show all pairs with the stage before.
    depths = calibration_depths(backbone)[: 4 if any(follows) else 2]
    traces = {}
    for skip in depths:
        progress(f'exporting at depth {skip}')
        with backbone.skipping(skip):
            traces[skip] = trace(model, shape, dynamic, opset, stages)
    if int8:
        progress('computing in eight bits')
        traces = quantise(traces, int8)
    return join(traces, follows)


def _follows_stage_before(module: nn.Module) -> bool:
    """Whether the stage of a module depends on the flag of the stage before, by calibrated norms."""
    return any(
        (isinstance(part, PathNorm) and part.calibrated)
        or (isinstance(part, SkipAwareConv) and part.before is not part.switch)
        for part in module.modules()
    )


def _write_description(
    exported: onnx.ModelProto,
    model: nn.Module,
    skip: str | None,
    adaptive: bool,
    cfg: Config | None,
    int8: list[np.ndarray] | None,
) -> None:
    """Writes into a file what `describe` reads."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', None) or {}
    several = skip and isinstance(model, SwitchableDepth) and len(skip) == model.num_skippable_stages
    about = {
        'mmadn': __version__,
        'skip': 'adaptive' if adaptive else skip,
        'flags': skip and len(skip),
        'parts': model.part_lengths if several else None,
        'int8': int8 and sum(map(len, int8)),
        'output': OUTPUTS.get(exported.graph.output[0].name, 'feature maps'),
        'classes': meta.get('classes'),
        'to_rgb': getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', None)),
        **describe_preprocessing(cfg, model),
        **describe_outputs(model),
    }
    for name in ('mean', 'std'):
        values = getattr(preprocessor, name, None)
        about[name] = None if values is None else values.flatten().tolist()
    known = {f'mmadn.{name}': json.dumps(value) for name, value in about.items() if value is not None}
    onnx.helper.set_model_props(exported, known)


@contextmanager
def _for_export(model: nn.Module, features: bool = False) -> Iterator[None]:
    """Eval mode and no gradients within the block; after it each module is in its own mode again.

    For feature maps a segmentor has no head there.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    headless = patch.object(model, 'decode_head', None) if features and is_segmentor(model) else nullcontext()
    try:
        with torch.no_grad(), headless:
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode

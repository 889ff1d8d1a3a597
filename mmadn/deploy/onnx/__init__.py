"""Export to ONNX: one sub-network, or one file whose depth is an input; and a session that runs it.

The adaptive file is made of two exports, all stages run and all skipped. Both are cut where a stage
begins and ends, and each stage becomes one `If` over its two pieces, so that nothing here knows what
a network is made of. What both exports hold is stored once.
"""

import hashlib
import json
import warnings
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.models.utils import ShiftWindowMSA
from torch import nn
from torch.export import Dim

from ...checkpoint.files import load_model
from ...depth import AdaptiveDepth, adaptive_backbone, unwrap
from ...errors import FailedError, InputError, MissingPackageError
from ...evaluation.flops import default_shape
from ...utils.report import replacing
from ...version import __version__

try:
    import onnx
    import onnx_ir
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import fold_constants_ir
except ImportError as error:
    raise MissingPackageError(
        f'ONNX needs packages that mmadn does without ({error}): pip install onnx onnxscript onnxruntime'
    ) from error

TOLERANCE = 1e-4  # of an output's difference to torch, in standard deviations of this output
MOST = 32  # depths that an export compares with torch; a network with more flags shows each of them
LARGE = 256  # elements from which a constant is stored once, instead of wherever it is used
LIMIT = 2**31  # bytes of a protobuf


def export_onnx(
    model: nn.Module,
    path,
    shape=(3, 224, 224),
    skip=None,
    adaptive: bool = False,
    dynamic: bool | None = None,
    opset: int | None = None,
) -> list[dict]:
    """Writes a network as ONNX, after the file has passed onnx's checker and agreed with torch.

    The input `images` is what the backbone gets: float32 of shape (N, 3, H, W), normalised. Its N is
    free. An adaptive file has a second input `skip`, a bool for each stage, and computes nothing of what
    is skipped. The output is `logits` of a classifier, before any softmax. Of any other model, such as
    a detector, backbone and neck are exported and the outputs are their feature maps, `feature_0` and
    on; heads and what comes after them are not. The file says about itself what `describe` reads.

    Args:
        model (nn.Module): A classifier or detector; any network with `backbone` and maybe `neck`.
        path (str | Path): The file, which appears whole or not at all.
        shape (Sequence[int]): Channels, height and width of an image.
        skip (str | Sequence[bool] | bool, optional): The depth of a fixed file, see `set_skip`. By default
            the present one.
        adaptive (bool): One file with all depths.
        dynamic (bool, optional): Whether height and width are free too. By default they are, unless the
            backbone is made for a size of image, as transformers are.
        opset (int, optional): Of ONNX, 18 or newer; by default torch's choice.

    Returns:
        list[dict]: For each depth compared with torch `skip` (None for a network without), `difference`,
        the largest one, and `relative`, the same in standard deviations of the output it is of.

    Raises:
        ValueError: `skip`, `shape` or `opset` does not fit, or two choices contradict each other.
        TypeError: The network has no adaptive depth and a choice needs it.
        OSError: The file cannot be written.
        RuntimeError: The network cannot be exported, or the file would compute something else.
    """
    model = unwrap(model)
    backbone = getattr(model, 'backbone', None)
    if adaptive or skip is not None:
        backbone = adaptive_backbone(model)
    if adaptive and skip is not None:
        raise InputError(
            f'skip={skip!r} and adaptive=True: an adaptive file has all depths, give one of both'
        )
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise InputError(f'shape={tuple(shape)}: give channels, height and width')
    if opset is not None and not 18 <= opset <= onnx.defs.onnx_opset_version():
        raise InputError(f'opset={opset}: give 18 to {onnx.defs.onnx_opset_version()}')
    if Path(path).is_dir():
        raise IsADirectoryError(f'{path} is a folder; give the name of a file')
    if not isinstance(backbone, AdaptiveDepth):
        skips = [None]
    elif adaptive:
        skips = _depths(backbone)
    else:
        skips = [backbone.skip if skip is None else backbone.parse_skip(skip)]
    if dynamic is None:
        dynamic = not hasattr(backbone, 'patch_resolution')
    with replacing(path) as temporary, _for_export(model), _at(backbone, skips[0]):
        temporary.touch()  # what cannot be written is known before minutes of work
        made = (
            _adaptive(model, shape, dynamic, opset)
            if adaptive
            else _trace(model, shape, dynamic, opset).model
        )
        flags = backbone.num_skippable_stages if skips[0] else None
        _describe(made, model, 'adaptive' if adaptive else skips[0], flags)
        if made.ByteSize() >= LIMIT:
            raise FailedError(f'{made.ByteSize() / 2**30:.1f} GiB are more than an ONNX file can hold')
        onnx.save(made, temporary)
        onnx.checker.check_model(temporary, full_check=True)
        return _compare(model, backbone, temporary, shape, skips, dynamic, adaptive)


def export_file(cfg, checkpoint, path, shape=None, **kwargs) -> list[dict]:
    """`export_onnx` of the network of a config and a checkpoint.

    Args:
        cfg (Config): Of a classifier or detector.
        checkpoint (str | Path): The weights of its model.
        path, **kwargs: See `export_onnx`.
        shape (Sequence[int], optional): Channels, height and width of an image; see `default_shape`.

    Raises:
        ValueError: The file is no checkpoint, or one of another network; and what `export_onnx` raises.
    """
    return export_onnx(load_model(cfg, checkpoint), path, shape or default_shape(cfg), **kwargs)


def table(rows: list[dict], path) -> list[dict]:
    """What `export_onnx` gives, as text, with the size of the file."""
    size = f'{Path(path).stat().st_size / 1e6:.2f}'
    return [
        {
            'skip': row['skip'] or '',
            'file (MB)': size,
            'largest difference to torch': f'{row["difference"]:.1e}',
            'in standard deviations': f'{row["relative"]:.1e}',
        }
        for row in rows
    ]


class AdaptiveSession:
    """Runs an adaptive ONNX file in onnxruntime.

    Args:
        path (str | Path): A file from `export_onnx(..., adaptive=True)`.
        providers (Sequence[str], optional): Of onnxruntime; by default the CPU's.
        threads (int, optional): Of the operators; by default onnxruntime's choice.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no ONNX file, or not an adaptive one.

    Example:
        >>> session = AdaptiveSession('resnet50.onnx')
        >>> session.run(images, skip='TTFF').shape
        (1, 1000)
    """

    def __init__(self, path, providers=None, threads=None):
        self.session = open_session(path, providers, threads)
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        if 'skip' not in self.inputs:
            about = describe(self.session)
            fixed = f' at the fixed depth {about["skip"]}' if 'skip' in about else ''
            raise InputError(
                f'{path} has no input for the depth{fixed}; export with adaptive=True, '
                'or run this file by onnxruntime.InferenceSession'
            )
        self.about = describe(self.session)

    @property
    def num_skippable_stages(self) -> int:
        return self.inputs['skip'].shape[0]

    parse_skip = AdaptiveDepth.parse_skip
    subnets = AdaptiveDepth.subnets

    def run(self, images, skip='super'):
        """Computes the outputs at one depth.

        Args:
            images (ndarray | Tensor): Normalised, floating, of shape (N, 3, H, W).
            skip (str | Sequence[bool] | bool): The depth, see `set_skip`.

        Returns:
            ndarray | list[ndarray]: The logits, or the feature maps of a detector, float32.

        Raises:
            ValueError: `images` or `skip` does not fit the network.
        """
        skip = np.array([letter == 'T' for letter in self.parse_skip(skip)])
        outputs = self.session.run(None, {'images': self._checked(images), 'skip': skip})
        return outputs[0] if len(outputs) == 1 else outputs

    def _checked(self, images):
        images = np.asarray(images)
        wanted = self.inputs['images'].shape
        fits = len(images.shape) == len(wanted) and all(
            n == w for n, w in zip(images.shape, wanted, strict=True) if isinstance(w, int)
        )
        if not fits or not np.issubdtype(images.dtype, np.floating):
            raise InputError(
                f'images of shape {images.shape} and type {images.dtype}: give normalised ones of shape '
                f'({", ".join(map(str, wanted))}) and type float32'
            )
        return images.astype(np.float32, copy=False)


def open_session(path, providers=None, threads=None) -> onnxruntime.InferenceSession:
    """A session of onnxruntime whose threads sleep while it does not run; errors as `AdaptiveSession` has."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: there is no such file')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no remarks on initialisers that an If does not read
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=list(providers or ['CPUExecutionProvider'])
        )
    except Exception as error:  # onnxruntime has a class an error, all of them plain Exceptions
        raise InputError(f'{path} is no ONNX file that onnxruntime can load: {error}') from error


def describe(session: onnxruntime.InferenceSession) -> dict:
    """What a file says about itself.

    Returns:
        dict: `mmadn`, the version; `skip`, a fixed depth or 'adaptive'; `flags`, how many there are;
        `output`, what the outputs are; and where the model knows them `mean`, `std` and `to_rgb` of
        the preprocessing, and `classes`.
    """
    stored = session.get_modelmeta().custom_metadata_map
    return {
        name.removeprefix('mmadn.'): json.loads(v) for name, v in stored.items() if name.startswith('mmadn.')
    }


def outputs_of(model, images) -> dict:
    """The outputs of a model by the names that they have in a file: what an export has to reproduce."""
    if isinstance(model, ImageClassifier) and model.with_head:
        return {'logits': model(images)}
    features = model.backbone(images)
    if getattr(model, 'neck', None) is not None:
        features = model.neck(features)
    return {f'feature_{i}': feature for i, feature in enumerate(features)}


@dataclass
class _Trace:
    """An exported network, and the names of the tensors where each of its stages begins and ends."""

    model: onnx.ModelProto
    ends: list[tuple[str, str]]


class _Traced(nn.Module):
    """Computes the outputs, and after them the tensors where the stages begin and end, none twice.

    Args:
        stages (Sequence[Sequence[nn.Module]]): The modules of each stage.
        found (dict): Gets `outputs`, their names, and `ends`, which of the tensors these are, None for
            the images. No attribute, because torch.export takes back what a forward does to those.
    """

    def __init__(self, model, stages, found):
        super().__init__()
        self.model = model
        calls = {}

        def note(stage):
            def hook(module, args, output):
                begin = calls.get(stage, args)[0]
                calls[stage] = begin, output[0] if isinstance(output, tuple) else output

            return hook

        def forward(images):
            calls.clear()
            outputs = outputs_of(model, images)
            ends = [calls[i] for i in range(len(stages))]
            tensors = {id(t): t for t in (*outputs.values(), *sum(ends, ())) if t is not images}
            place = {key: i for i, key in enumerate(tensors)}
            found.update(outputs=list(outputs), ends=[[place.get(id(t)) for t in pair] for pair in ends])
            return tuple(tensors.values())

        self.forward = forward
        self.hooks = [m.register_forward_hook(note(i)) for i, stage in enumerate(stages) for m in stage]


def _trace(model, shape, dynamic, opset, stages=()) -> _Trace:
    """Exports a network at its present depth."""
    found = {}
    traced = _Traced(model, stages, found)
    size = Dim.AUTO if dynamic else Dim.STATIC
    try:
        with warnings.catch_warnings(), _integer_windows():
            warnings.simplefilter('ignore')
            # By itself torch.onnx.export would go on, when this fails, with one that fixes the batch.
            exported = torch.export.export(
                traced,
                (_images(model, 2, *shape),),  # not of one image, which would stay a constant too
                dynamic_shapes=[{0: Dim('batch'), 2: size, 3: size}],
                strict=False,
            )
            made = torch.onnx.export(
                exported,
                dynamo=True,
                optimize=False,  # it folds norms into convolutions, and then no two depths share any
                verbose=False,
                input_names=['images'],
                opset_version=opset,
            ).model
    finally:
        for hook in traced.hooks:
            hook.remove()
    passes.InlinePass()(made)
    fold_constants_ir(made, input_size_limit=LIMIT, output_size_limit=LIMIT)
    for tidy in (
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=LARGE),
        passes.DeduplicateInitializersPass(size_limit=LIMIT),
        passes.RemoveUnusedNodesPass(),
        passes.ClearMetadataAndDocStringPass(),  # source lines, with this machine's paths
    ):
        tidy(made)
    for value, name in zip(made.graph.outputs, found['outputs'], strict=False):
        value.name = name
    names = {None: 'images', **{i: value.name for i, value in enumerate(made.graph.outputs)}}
    proto = onnx_ir.to_proto(made)
    del proto.graph.output[len(found['outputs']) :], proto.graph.value_info[:]
    _name_sizes(proto.graph)
    return _Trace(proto, [(names[begin], names[end]) for begin, end in found['ends']])


@contextmanager
def _integer_windows():
    """mmpretrain's Swin finds its batch by a division of floats, which torch.export cannot keep free."""

    def window_reverse(windows, height, width, size):
        windows = windows.unflatten(0, (-1, height // size, width // size))
        return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    stock = ShiftWindowMSA.window_reverse
    ShiftWindowMSA.window_reverse = staticmethod(window_reverse)
    try:
        yield
    finally:
        ShiftWindowMSA.window_reverse = staticmethod(stock)


def _name_sizes(graph):
    """Names the free sizes of the images; those of the outputs, which follow from them, are left open."""
    for value, names in [(graph.input[0], 'NCHW'), *((out, 'N') for out in graph.output)]:
        for i, size in enumerate(value.type.tensor_type.shape.dim):
            if size.HasField('dim_param'):
                size.dim_param = dict(N='batch', H='height', W='width').get(names[i : i + 1], '')


def _adaptive(model, shape, dynamic, opset) -> onnx.ModelProto:
    backbone = adaptive_backbone(model)
    stages = [[*mandatory, *skippable] for mandatory, skippable in backbone.sub_paths(None)]
    traces = []
    for skip in ('super', 'base'):
        with backbone.skipping(skip):
            traces.append(_trace(model, shape, dynamic, opset, stages))
    return _join(*traces)


def _join(full: _Trace, short: _Trace) -> onnx.ModelProto:
    """One network with an `If` a stage, of two exports: all stages run, and all skipped."""
    graph = full.model.graph
    weights, names = _share(graph.initializer, short.model.graph.initializer)
    # Where stages begin and end, the tensors of both exports are one, outside of the `If`.
    names.update(zip(sum(short.ends, ()), sum(full.ends, ()), strict=True))
    last = {end: i for i, (_, end) in enumerate(full.ends)}
    firsts = {begin for begin, _ in full.ends}
    outer = _slice(graph.node, {value.name for value in graph.output} | firsts, set(last))
    branches = [(_branch(full, i, 'F', {}), _branch(short, i, 'T', names)) for i in range(len(last))]

    readers = defaultdict(list)
    for branch in sum(branches, ()):
        for name in _read(branch.node):
            readers[name].append(branch)
    common = []
    for name, weight in weights.items():
        if name in _read(outer) or len(readers[name]) > 1:
            common.append(weight)
        elif readers[name]:  # onnxruntime lays out anew only the weights that a branch itself holds
            readers[name][0].initializer.append(weight)

    nodes, kept = [], {node.name for node in outer}
    for node in graph.node:
        if node.name in kept:
            nodes.append(node)
        for end in last.keys() & set(node.output):
            i = last[end]
            nodes += _choice(i, end, *branches[i])
    flags = helper.make_tensor_value_info('skip', TensorProto.BOOL, [len(last)])
    return helper.make_model(
        helper.make_graph(nodes, 'adaptive_depth', [*graph.input, flags], graph.output, common),
        opset_imports=full.model.opset_import,
        ir_version=full.model.ir_version,
        producer_name=full.model.producer_name,
        producer_version=full.model.producer_version,
    )


def _share(full, short):
    """Finds the weights that two exports have in common, by their values.

    Returns:
        tuple[dict, dict]: All weights by the names that they get in one network, and these names by those
        in the second export.
    """
    weights = {weight.name: weight for weight in full}
    known = {_content(weight): weight.name for weight in full}
    names = {}
    for weight in short:
        name = known.get(_content(weight))
        if name is None:
            name = f'{weight.name}.T' if weight.name in weights else weight.name
            weights[name] = TensorProto()
            weights[name].CopyFrom(weight)
            weights[name].name = name
        names[weight.name] = name
    return weights, names


def _content(weight):
    values = numpy_helper.to_array(weight)
    return weight.data_type, values.shape, hashlib.sha256(values.tobytes()).digest()


def _slice(nodes, outputs, given):
    """The nodes that compute `outputs`, in their order, from `given` and what no node computes."""
    wanted, kept = set(outputs) - {''}, []
    for node in reversed(nodes):
        if any(name in wanted and name not in given for name in node.output):
            kept.append(node)
            wanted.update(set(node.input) - {''})
    return kept[::-1]


def _branch(trace, i, letter, names) -> onnx.GraphProto:
    """What an export computes between the ends of stage `i`, under names that no other branch has.

    Args:
        names (dict): What is outside of the branch, by its name in the export.
    """
    end = trace.ends[i][1]
    given = {name for ends in trace.ends for name in ends} - {end}
    nodes = _slice(trace.model.graph.node, {end}, given)
    mark = f'.{i}{letter}'
    inside = {name: name + mark for node in nodes for name in node.output if name}
    graph = helper.make_graph(
        [], f'stage{mark}', [], [helper.make_tensor_value_info(end + mark, TensorProto.FLOAT, None)]
    )
    for node in nodes:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name += mark
        copy.input[:] = [inside.get(name, names.get(name, name)) for name in node.input]
        copy.output[:] = [inside.get(name, name) for name in node.output]
    return graph


def _choice(i, end, run, skipped):
    """Nodes that compute `end` by one of two graphs, as flag `i` says."""
    index = numpy_helper.from_array(np.array(i), f'flag.{i}.index')
    return [
        helper.make_node('Constant', [], [index.name], name=index.name, value=index),
        helper.make_node('Gather', ['skip', index.name], [f'flag.{i}'], name=f'flag.{i}'),
        helper.make_node('If', [f'flag.{i}'], [end], f'stage.{i}', then_branch=skipped, else_branch=run),
    ]


def _read(nodes):
    return {name for node in nodes for name in node.input}


def _describe(made, model, skip, flags):
    """Writes into a file what it is, see `describe`."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    about = dict(
        mmadn=__version__,
        skip=skip,
        flags=flags,
        output='logits' if made.graph.output[0].name == 'logits' else 'feature maps',
        classes=(getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', None) or {}).get(
            'classes'
        ),
        to_rgb=getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', None)),
        **{
            k: v.flatten().tolist()
            for k in ('mean', 'std')
            if (v := getattr(preprocessor, k, None)) is not None
        },
    )
    helper.set_model_props(made, {f'mmadn.{k}': json.dumps(v) for k, v in about.items() if v is not None})


def _compare(model, backbone, path, shape, skips, dynamic, adaptive) -> list[dict]:
    """Runs a file beside torch; raises RuntimeError where they differ."""
    session = open_session(path)
    sizes = [(1, *shape), (3, shape[0], shape[1] + 32, shape[2] + 64)][: 1 + dynamic]
    rows = []
    for skip in skips:
        row = dict(skip=skip, difference=0.0, relative=0.0)
        for size in sizes if skip in (skips[0], skips[-1]) else sizes[:1]:
            images = _images(model, *size)
            inputs = {'images': images.cpu().numpy()}
            if adaptive:
                inputs['skip'] = np.array([letter == 'T' for letter in skip])
            with _at(backbone, skip):
                expected = outputs_of(model, images)
            found = session.run(list(expected), inputs)
            for a, b in zip(expected.values(), found, strict=True):
                a = a.cpu()
                difference = (a - torch.from_numpy(b)).abs().max().item()
                row['difference'] = max(row['difference'], difference)
                row['relative'] = max(row['relative'], difference / a.std().item())
        if not row['relative'] <= TOLERANCE:
            raise FailedError(
                f'the file would differ from torch at depth {skip} by {row["difference"]:.2g}, '
                f'{row["relative"]:.2g} of the standard deviation of an output; it was not written'
            )
        rows.append(row)
    return rows


def _images(model, *size):
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(size, generator=generator).to(next(model.parameters()).device)


def _depths(backbone):
    """All depths, or, of a network with many flags, the ends and those that differ from one in one flag."""
    n = backbone.num_skippable_stages
    if 2**n <= MOST:
        return backbone.subnets()
    return [
        'F' * n,
        *(a * i + b + a * (n - i - 1) for a, b in ('FT', 'TF') for i in range(n)),
        'T' * n,
    ]


def _at(backbone, skip):
    return nullcontext() if skip is None else backbone.skipping(skip)


@contextmanager
def _for_export(model):
    """Sets the mode in which a network is exported, and restores its own."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            model.train()

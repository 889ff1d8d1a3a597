"""Exports a torch network at one depth, with the tensors where its stages begin and end."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnx_ir
import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.models.utils import ShiftWindowMSA
from onnx import GraphProto
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir
from torch import Tensor, nn
from torch.export import Dim

from .joining import Trace

LARGE = 256  # elements from which a constant is stored once, instead of wherever it is used
LIMIT = 2**31  # bytes of a protobuf


def outputs_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The outputs of a model by the names that they have in a file: what an export has to reproduce."""
    if isinstance(model, ImageClassifier) and model.with_head:
        return {'logits': model(images)}
    if is_segmentor(model):
        return {'seg_logits': model.encode_decode(images, [dict(img_shape=images.shape[2:])])}
    features = model.backbone(images)
    if getattr(model, 'neck', None) is not None:
        features = model.neck(features)
    return {f'feature_{i}': feature for i, feature in enumerate(features)}


def is_segmentor(model: nn.Module) -> bool:
    """Whether a model is one of mmseg's, which need not be installed, with its head."""
    return getattr(model, 'decode_head', None) is not None and hasattr(model, 'encode_decode')


def example_images(model: nn.Module, *size: int, seed: int = 0) -> Tensor:
    """Random images of a size (N, 3, H, W), by a seed always the same ones, on the device of the model."""
    generator = torch.Generator().manual_seed(sum(size) + seed)
    return torch.randn(size, generator=generator).to(next(model.parameters()).device)


def trace(
    model: nn.Module,
    shape: Sequence[int],
    dynamic: bool,
    opset: int | None,
    stages: Sequence[Sequence[nn.Module]] = (),
) -> Trace:
    """Exports a network at its present depth.

    Args:
        model: In eval mode.
        shape: Channels, height and width of an image.
        dynamic: Whether height and width are free, as the number of images is.
        opset: Of ONNX; None for torch's choice.
        stages: The modules of each stage, if the export is to be cut there.
    """
    layout = _Layout()
    network = _WithBorders(model, stages, layout)
    size = Dim.AUTO if dynamic else Dim.STATIC
    try:
        with warnings.catch_warnings(), _integer_windows():
            warnings.simplefilter('ignore')
            # By itself torch.onnx.export would go on, when this fails, with an exporter that fixes the batch.
            program = torch.export.export(
                network,
                (example_images(model, 2, *shape),),  # not one image: a size of 1 would stay a constant too
                dynamic_shapes=[{0: Dim('batch'), 2: size, 3: size}],
                strict=False,
            )
            exported = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,  # it folds norms into convolutions, and then no two depths share any
                verbose=False,
                input_names=['images'],
                opset_version=opset,
            ).model
    finally:
        network.remove_hooks()
    tidy(exported)
    outputs = list(exported.graph.outputs)
    for value, name in zip(outputs, layout.names, strict=False):
        value.name = name
    places = {None: 'images', **{i: value.name for i, value in enumerate(outputs)}}
    proto = onnx_ir.to_proto(exported)
    # The borders are no outputs of the file; what their types are is kept for who cuts it there. So are the
    # shapes of what is added: within an `If`, onnxruntime knows by them alone that an addition can be fused.
    added = {name for node in proto.graph.node if node.op_type == 'Add' for name in node.input}
    borders = list(proto.graph.output[len(layout.names) :])
    known = [value for value in proto.graph.value_info if value.name in added] if stages else []
    del proto.graph.output[len(layout.names) :], proto.graph.value_info[:]
    proto.graph.value_info.extend([*borders, *known])
    _name_sizes(proto.graph)
    return Trace(proto, [(places[begin], places[end]) for begin, end in layout.borders])


@dataclass
class _Layout:
    """What the tensors are that `_WithBorders` gives.

    Attributes:
        names: The names of the outputs, which are the first of the tensors.
        borders: For each stage which of the tensors are its begin and its end; None stands for the images.
    """

    names: list[str] = field(default_factory=list)
    borders: list[tuple[int | None, int | None]] = field(default_factory=list)


class _WithBorders(nn.Module):
    """Gives the outputs of a network, and after them the tensors where its stages begin and end, none twice.

    Args:
        layout: Is filled by the forward pass. It is no attribute, because torch.export takes back what a
            forward pass does to attributes.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Sequence[nn.Module]], layout: _Layout):
        super().__init__()
        self.model = model
        found = {}  # of each stage, the first input and the last output of its modules

        def watch(stage: int) -> Callable:
            def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
                begin = found.get(stage, args)[0]
                found[stage] = begin, output[0] if isinstance(output, tuple) else output

            return hook

        def forward(images: Tensor) -> tuple[Tensor, ...]:
            found.clear()
            outputs = outputs_of(model, images)
            pairs = [found[stage] for stage in range(len(stages))]
            tensors = {id(t): t for t in (*outputs.values(), *sum(pairs, ())) if t is not images}
            place = {key: i for i, key in enumerate(tensors)}
            layout.names = list(outputs)
            layout.borders = [(place.get(id(begin)), place.get(id(end))) for begin, end in pairs]
            return tuple(tensors.values())

        self.forward = forward
        self.hooks = [m.register_forward_hook(watch(i)) for i, stage in enumerate(stages) for m in stage]

    def remove_hooks(self) -> None:
        for hook in self.hooks:
            hook.remove()


@contextmanager
def _integer_windows() -> Iterator[None]:
    """mmpretrain's Swin finds its batch by a division of floats, which torch.export cannot keep free."""

    def window_reverse(windows: Tensor, height: int, width: int, size: int) -> Tensor:
        windows = windows.unflatten(0, (-1, height // size, width // size))
        return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    stock = ShiftWindowMSA.window_reverse
    ShiftWindowMSA.window_reverse = staticmethod(window_reverse)
    try:
        yield
    finally:
        ShiftWindowMSA.window_reverse = staticmethod(stock)


def tidy(model: onnx_ir.Model) -> None:
    """Leaves nothing but what computes, and every weight once."""
    passes.InlinePass()(model)
    with without_remarks():
        fold_constants_ir(model, input_size_limit=LIMIT, output_size_limit=LIMIT)
    for step in (
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=LARGE),
        passes.DeduplicateInitializersPass(size_limit=LIMIT),
        passes.RemoveUnusedNodesPass(),
        passes.ClearMetadataAndDocStringPass(),  # source lines, with this machine's paths
    ):
        step(model)


@contextmanager
def without_remarks() -> Iterator[None]:
    """onnxscript and onnxruntime write remarks on what they leave out to the loggers of Python."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _name_sizes(graph: GraphProto) -> None:
    """Names the free sizes of the images; those of the outputs, which follow from them, are left open."""
    for value, names in [(graph.input[0], 'NCHW'), *((out, 'N') for out in graph.output)]:
        for i, size in enumerate(value.type.tensor_type.shape.dim):
            if size.HasField('dim_param'):
                size.dim_param = dict(N='batch', H='height', W='width').get(names[i : i + 1], '')

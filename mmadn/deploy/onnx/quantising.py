"""Static quantisation to int8, of each export before they are joined into a file of all depths.

onnxruntime quantises nothing inside of an `If`, and the exports have none yet. Where a stage begins and ends,
all depths share a range, so that eight bits go from stage to stage. A norm folded into its convolution scales
output channels, and so do the scales of eight-bit weights: both copies of a norm have the same weights.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.utils import Extractor
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from ...errors import InputError
from .joining import Trace
from .tracing import without_remarks

FEWEST = 32  # images
QUANTISED = '_QuantizeLinear_Output'  # how onnxruntime ends the name of a tensor in eight bits


def check_batches(batches: Iterable[Tensor], size: Sequence[int] | None) -> list[np.ndarray]:
    """Images that give ranges, as arrays.

    Args:
        size: Height and width, if a file takes no others; images of other sizes are resized.

    Raises:
        ValueError: They are no batches of images, or too few.
    """
    found = []
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.ndim != 4 or batch.shape[1] != 3:
            given = tuple(batch.shape) if hasattr(batch, 'shape') else type(batch).__name__
            raise InputError(f'int8: {given} is no batch of images of shape (N, 3, H, W)')
        batch = batch.float()
        if size is not None and batch.shape[2:] != tuple(size):
            batch = nn.functional.interpolate(batch, tuple(size), mode='bilinear')
        found.append(batch.numpy(force=True))
    check_number(sum(map(len, found)))
    return found


def check_number(images: int) -> None:
    """Raises ValueError where so many images are too few."""
    if images < FEWEST:
        raise InputError(
            f'int8: {images} images are too few for the ranges of eight bits; give {FEWEST} or more'
        )


def quantise(traces: Mapping[str, Trace], batches: Sequence[np.ndarray]) -> dict[str, Trace]:
    """The exports in eight bits: weights by output channel, what is computed by tensor.

    Args:
        traces: The exports of a network by their depths.
        batches: Images for the ranges, float32 of shape (N, 3, H, W) as the network gets them.
    """
    ranges = _ranges(traces.values(), batches)
    quantised = {depth: _quantised(trace, batches, ranges) for depth, trace in traces.items()}
    _share_weights([trace.model for trace in quantised.values()])
    return quantised


def _borders(trace: Trace) -> list[str]:
    return [name for pair in trace.stages for name in pair]


def _with_borders(trace: Trace) -> ModelProto:
    """The export with the tensors between its stages as outputs, which thereby keep their names."""
    model, types = ModelProto(), {value.name: value for value in trace.model.graph.value_info}
    model.CopyFrom(trace.model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(types[name] for name in dict.fromkeys(_borders(trace)) if name not in known)
    return model


def _common(trace: Trace) -> list[str]:
    """What all depths compute alike, or store between stages: tensors that have one range in a file."""
    if not trace.stages:
        return []
    begins, ends = (sorted(set(names)) for names in zip(*trace.stages, strict=True))
    outputs = [value.name for value in trace.model.graph.output]
    outer = Extractor(trace.model).extract_model(ends, sorted({*begins, *outputs}))
    return [*_borders(trace), *(name for node in outer.graph.node for name in node.output)]


def _ranges(traces: Iterable[Trace], batches: Sequence[np.ndarray]) -> dict[int, tuple[float, float]]:
    """The least and the largest value of what `_common` names, at all depths."""
    ranges = {}
    for trace in traces:
        model, common = _with_borders(trace), _common(trace)
        known = {value.name for value in (*model.graph.input, *model.graph.output)}
        model.graph.output.extend(
            ValueInfoProto(name=name) for name in dict.fromkeys(common) if name not in known
        )
        session = onnxruntime.InferenceSession(model.SerializeToString(), _quiet())
        inputs = {value.name for value in session.get_inputs()}
        places = [(i, name) for i, name in enumerate(common) if name not in inputs]
        for images in batches if places else ():
            found = session.run([name for _, name in places], {'images': images})
            for (i, _), values in zip(places, found, strict=True):
                if values.dtype == np.float32:
                    low, high = ranges.get(i, (np.float32(0), np.float32(0)))
                    ranges[i] = min(low, values.min()), max(high, values.max())
    return ranges


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Sequence[np.ndarray]):
        self.batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self.batches, None)
        return None if images is None else {'images': images}


def _quantised(trace: Trace, batches: Sequence[np.ndarray], ranges: Mapping[int, tuple]) -> Trace:
    given = {
        name: [{'quant_type': QuantType.QUInt8, 'rmin': ranges[i][0], 'rmax': ranges[i][1]}]
        for i, name in enumerate(_common(trace))
        if i in ranges
    }
    with tempfile.TemporaryDirectory() as folder, without_remarks():
        exported, folded, quantised = (Path(folder) / f'{name}.onnx' for name in ('a', 'b', 'c'))
        onnx.save(_with_borders(trace), exported)
        quant_pre_process(exported, folded, skip_symbolic_shape=True)
        float_model = onnx.load(folded)
        _end_names(float_model)
        onnx.save(float_model, folded)
        kept = {name for node in float_model.graph.node for name in node.output}
        quantize_static(
            folded,
            quantised,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={'TensorQuantOverrides': {name: given[name] for name in given if name in kept}},
        )
        model = onnx.load(quantised)
    made = {name for node in model.graph.node for name in node.output}
    eight_bits = {name for name in given if name + QUANTISED in made}
    cuts = {name: name + QUANTISED if name in eight_bits else name for name in _borders(trace)}
    outputs = {value.name for value in trace.model.graph.output}
    values = list(model.graph.output)
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.extend(value for value in values if value.name in outputs)
    model.graph.value_info.extend(_cut(value, cuts[value.name]) for value in values if value.name in cuts)
    return Trace(model, [(cuts[begin], cuts[end]) for begin, end in trace.stages])


def _end_names(model: ModelProto) -> None:
    """Ends the name of each weight with a dot.

    onnxruntime numbers the copies of a bias that several nodes share: `val_7` becomes `val_777`, which may be
    the name of another tensor.
    """
    for weight in model.graph.initializer:
        weight.name += '.'
    ended = {weight.name[:-1]: weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        node.input[:] = [ended.get(name, name) for name in node.input]


def _cut(value: ValueInfoProto, name: str) -> ValueInfoProto:
    cut = ValueInfoProto()
    cut.CopyFrom(value)
    if cut.name != name:
        cut.name, cut.type.tensor_type.elem_type = name, TensorProto.UINT8
    return cut


def _share_weights(models: Sequence[ModelProto]) -> None:
    """Makes weights equal that differ by rounding alone, so that they are stored once."""
    known = {}
    for model in models:
        for weight in model.graph.initializer:
            if weight.data_type == TensorProto.INT8 and len(weight.dims) > 1:
                values = numpy_helper.to_array(weight)
                same = known.setdefault(values.shape, [])
                near = (each for each in same if np.abs(np.subtract(values, each, dtype=np.int16)).max() <= 1)
                if (first := next(near, None)) is None:
                    same.append(values)
                else:
                    weight.CopyFrom(numpy_helper.from_array(first, weight.name))

"""Joins exports of a network at several depths into one file whose depth is an input.

All are cut into the same segments. A segment depends on the flag of its stage, or on that and the flag of the
stage before, and becomes an `If` over what the exports compute there, so that nothing here knows what a
network is made of. Weights that several exports hold are stored once.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.compose import add_prefix_graph
from onnx.utils import Extractor


@dataclass
class Trace:
    """A network, exported at one depth.

    Attributes:
        model: Its inputs, outputs and `value_info` give the types of the tensors in `segments`.
        segments: The names of the tensors where each segment begins and ends, in the order in which they
            run. Of a segment that does nothing at this depth both are the same.
    """

    model: ModelProto
    segments: list[tuple[str, str]]


def join(traces: Mapping[str, Trace], flags: Sequence[Sequence[int]]) -> ModelProto:
    """One network with an `If` for each segment.

    Args:
        traces: The exports by their depths, such as 'TTFF'. In the first no stage is skipped. Together they
            show each segment all values of its flags.
        flags: The numbers of the flags on which each segment depends.

    Returns:
        The first network with a second input `skip`, a bool for each stage.
    """
    full = next(iter(traces.values()))
    graph = full.model.graph
    segment_of = {end: i for i, (_, end) in enumerate(full.segments)}
    begins = {begin for begin, _ in full.segments}
    outputs = {value.name for value in graph.output}
    outer = Extractor(full.model).extract_model(list(segment_of), sorted(begins | outputs)).graph
    branches = _branches(traces, flags, full.segments)
    _place_weights(outer, branches.values())

    nodes, kept, flags_read = [], {node.name for node in outer.node}, set()
    for node in graph.node:
        if node.name in kept:
            nodes.append(node)
        for end in segment_of.keys() & set(node.output):
            i = segment_of[end]
            for flag in sorted(set(flags[i]) - flags_read):
                nodes += _reading(flag)
            flags_read.update(flags[i])
            nodes.append(_choice(i, flags[i], end, branches))
    skip = helper.make_tensor_value_info('skip', TensorProto.BOOL, [len(next(iter(traces)))])
    return helper.make_model(
        helper.make_graph(
            nodes, 'adaptive_depth', [*graph.input, skip], graph.output, initializer=outer.initializer
        ),
        opset_imports=full.model.opset_import,
        ir_version=full.model.ir_version,
        producer_name=full.model.producer_name,
        producer_version=full.model.producer_version,
    )


def _branches(
    traces: Mapping[str, Trace], flags: Sequence[Sequence[int]], borders: Sequence[tuple[str, str]]
) -> dict[tuple[int, str], GraphProto]:
    """What the exports compute in each segment, by its number and the letters of its flags.

    All names in a branch are its own, but for those of weights and of tensors around it.

    Args:
        traces, flags: See `join`.
        borders: What the tensors are called in the file where each segment begins and ends.
    """
    branches, known = {}, {}
    for depth, trace in traces.items():
        extractor = Extractor(trace.model)
        # The names in the file of what surrounds a segment: the weights, and the tensors up to there.
        names = _names_of_weights(trace.model.graph.initializer, known)
        for i, ((begin, end), (begin_in_file, end_in_file)) in enumerate(
            zip(trace.segments, borders, strict=True)
        ):
            names[begin] = begin_in_file
            letters = ''.join(depth[flag] for flag in flags[i])
            if (i, letters) not in branches:
                branch = _segment(extractor, trace.segments, i)
                branch.name = f'stage.{_label(flags[i])}{letters}'
                prefix = f'{letters}{_label(flags[i])}.'
                add_prefix_graph(
                    branch, prefix, rename_initializers=False, inplace=True, name_map=dict(names)
                )
                branches[i, letters] = branch
            names[end] = end_in_file
    return branches


def _names_of_weights(weights: Iterable[TensorProto], known: dict[tuple, str]) -> dict[str, str]:
    """What the weights of an export are called in the file: where equal, as those of exports before it.

    Args:
        known: The names of all weights by what they hold, to which those of this export are added.
    """
    names, taken = {}, set(known.values())
    for weight in weights:
        values = numpy_helper.to_array(weight)
        content = weight.data_type, values.shape, hashlib.sha256(values.tobytes()).digest()
        if content not in known:
            name = weight.name
            while name in taken:
                name += '.T'
            known[content] = name
        names[weight.name] = known[content]
    return names


def _segment(extractor: Extractor, segments: Sequence[tuple[str, str]], i: int) -> GraphProto:
    """What an export computes in a segment, with its weights, as a graph for an `If`."""
    begin, end = segments[i]
    kind = extractor.value_infos[end].type.tensor_type.elem_type
    if begin == end:  # but an `If` cannot give what it has not computed
        return helper.make_graph(
            [helper.make_node('Identity', [begin], ['same'], 'same')], '', [], [_tensor('same', kind)]
        )
    borders = {name for segment in segments for name in segment}
    graph = extractor.extract_model(sorted(borders - {end}), [end]).graph
    # The graphs of an `If` have no inputs: they read the tensors around them by name.
    del graph.input[:], graph.value_info[:]
    graph.output[0].CopyFrom(_tensor(end, kind))
    return graph


def _tensor(name: str, kind: int) -> ValueInfoProto:
    # Without its shape, in which the exports name the free sizes in their own ways.
    return helper.make_tensor_value_info(name, kind, None)


def _place_weights(outer: GraphProto, branches: Collection[GraphProto]) -> None:
    """Moves the weights that several graphs read into the outer one, each once.

    The others stay in their branch, because onnxruntime optimises the layout of only those weights that a
    branch itself holds.
    """
    readers = Counter(weight.name for graph in (outer, *branches) for weight in graph.initializer)
    common = {weight.name for weight in outer.initializer}
    for branch in branches:
        for i in reversed(range(len(branch.initializer))):
            if readers[branch.initializer[i].name] > 1:
                weight = branch.initializer.pop(i)
                if weight.name not in common:
                    outer.initializer.append(weight)
                    common.add(weight.name)


def _label(flags: Sequence[int]) -> str:
    """Of a segment: the number of its stage, and that of the stage before where it depends on both."""
    return '.after.'.join(map(str, flags))


def _reading(flag: int) -> list[NodeProto]:
    """Nodes that take one flag out of the input."""
    index = numpy_helper.from_array(np.array(flag), f'flag.{flag}.index')
    return [
        helper.make_node('Constant', [], [index.name], name=index.name, value=index),
        helper.make_node('Gather', ['skip', index.name], [f'flag.{flag}'], name=f'flag.{flag}'),
    ]


def _choice(
    i: int,
    flags: Sequence[int],
    output: str,
    branches: Mapping[tuple[int, str], GraphProto],
    letters: str = '',
) -> NodeProto:
    """An `If` that computes `output`, the end of segment `i`, as its flags say.

    Args:
        letters: Those of the first flags, where an `If` around this one has chosen already.
    """
    name = f'stage.{_label(flags)}{letters}'
    bodies = {}
    for letter in 'TF':
        body = branches.get((i, letters + letter))
        if body is None:
            inner = f'{letters}{letter}{_label(flags)}.{output}'
            node = _choice(i, flags, inner, branches, letters + letter)
            kind = node.attribute[0].g.output[0].type.tensor_type.elem_type
            body = helper.make_graph([node], f'{name}{letter}', [], [_tensor(inner, kind)])
        bodies[letter] = body
    flag = f'flag.{flags[len(letters)]}'
    return helper.make_node('If', [flag], [output], name, then_branch=bodies['T'], else_branch=bodies['F'])

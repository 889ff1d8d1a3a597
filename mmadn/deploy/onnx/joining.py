"""Joins two exports of a network, all stages run and all skipped, into one file whose depth is an input.

Both are cut where a stage begins and ends, and each stage becomes one `If` over its two pieces, so that
nothing here knows what a network is made of. Weights that both exports hold are stored once.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.compose import add_prefix_graph
from onnx.utils import Extractor


@dataclass
class Trace:
    """A network, exported at one depth.

    Attributes:
        model: Its inputs, outputs and `value_info` give the types of the tensors in `stages`.
        stages: The names of the tensors where each stage begins and ends.
    """

    model: ModelProto
    stages: list[tuple[str, str]]


def join(full: Trace, short: Trace) -> ModelProto:
    """One network with an `If` for each stage.

    Args:
        full: Exported with all stages run.
        short: Exported with all stages skipped.

    Returns:
        The network of `full` with a second input `skip`, a bool for each stage.
    """
    graph = full.model.graph
    names = _common_names(graph.initializer, short.model.graph.initializer)
    for ours, theirs in zip(full.stages, short.stages, strict=True):
        names.update(zip(theirs, ours, strict=True))  # what lies outside of the `If` is named as in `full`
    stage_of = {end: i for i, (_, end) in enumerate(full.stages)}
    begins = {begin for begin, _ in full.stages}
    outputs = {value.name for value in graph.output}
    outer = Extractor(full.model).extract_model(list(stage_of), sorted(begins | outputs)).graph
    run, skipped = _branches(full, 'F', {}), _branches(short, 'T', names)
    _place_weights(outer, [*run, *skipped])

    nodes, kept = [], {node.name for node in outer.node}
    for node in graph.node:
        if node.name in kept:
            nodes.append(node)
        for end in stage_of.keys() & set(node.output):
            i = stage_of[end]
            nodes += _choice(i, end, run[i], skipped[i])
    flags = helper.make_tensor_value_info('skip', TensorProto.BOOL, [len(full.stages)])
    return helper.make_model(
        helper.make_graph(
            nodes, 'adaptive_depth', [*graph.input, flags], graph.output, initializer=outer.initializer
        ),
        opset_imports=full.model.opset_import,
        ir_version=full.model.ir_version,
        producer_name=full.model.producer_name,
        producer_version=full.model.producer_version,
    )


def _common_names(full: Iterable[TensorProto], short: Iterable[TensorProto]) -> dict[str, str]:
    """How the weights of the second export are called beside those of the first: by theirs where equal."""
    known = {_content(weight): weight.name for weight in full}
    taken = set(known.values())
    return {
        weight.name: known.get(_content(weight), weight.name + '.T' * (weight.name in taken))
        for weight in short
    }


def _content(weight: TensorProto) -> tuple:
    values = numpy_helper.to_array(weight)
    return weight.data_type, values.shape, hashlib.sha256(values.tobytes()).digest()


def _branches(trace: Trace, letter: str, names: dict[str, str]) -> list[GraphProto]:
    """What an export computes in each stage, with its weights, under names that no other branch has.

    Args:
        letter: 'T' of the export that skips the stages, 'F' of the other.
        names: What is outside of the branches, by its name in the export.
    """
    extractor = Extractor(trace.model)
    borders = {name for pair in trace.stages for name in pair}
    branches = []
    for i, (_, end) in enumerate(trace.stages):
        branch = extractor.extract_model(sorted(borders - {end}), [end]).graph
        branch.name = f'stage.{i}{letter}'
        # The graphs of an `If` have no inputs: they read the tensors around them by name.
        del branch.input[:], branch.value_info[:]
        kind = branch.output[0].type.tensor_type.elem_type
        # Without its shape, in which both exports name the free sizes in their own way.
        branch.output[0].CopyFrom(helper.make_tensor_value_info(end, kind, None))
        prefix = f'{letter}{i}.'
        add_prefix_graph(branch, prefix, rename_initializers=False, inplace=True, name_map=dict(names))
        branches.append(branch)
    return branches


def _place_weights(outer: GraphProto, branches: list[GraphProto]) -> None:
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


def _choice(i: int, end: str, run: GraphProto, skipped: GraphProto) -> list[NodeProto]:
    """Nodes that compute `end` by one of two graphs, as flag `i` says."""
    index = numpy_helper.from_array(np.array(i), f'flag.{i}.index')
    return [
        helper.make_node('Constant', [], [index.name], name=index.name, value=index),
        helper.make_node('Gather', ['skip', index.name], [f'flag.{i}'], name=f'flag.{i}'),
        helper.make_node('If', [f'flag.{i}'], [end], f'stage.{i}', then_branch=skipped, else_branch=run),
    ]

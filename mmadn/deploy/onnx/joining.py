"""Joins exports of a network at several depths into one file whose depth is an input.

All are cut where a stage begins and ends, and each stage becomes one `If` over its two pieces, so that
nothing here knows what a network is made of. Where a stage also depends on whether the one before is skipped,
it has four pieces, and either branch of its `If` chooses between two. Weights that several exports hold are
stored once.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.compose import add_prefix_graph
from onnx.utils import Extractor

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # where maps of shape (N, C, H, W) get their channels, and back


@dataclass
class Trace:
    """A network, exported at one depth.

    Attributes:
        model: Its inputs, outputs and `value_info` give the types of the tensors in `stages`.
        stages: The names of the tensors where each stage begins and ends.
    """

    model: ModelProto
    stages: list[tuple[str, str]]


def join(traces: Mapping[str, Trace], follows: Sequence[bool]) -> ModelProto:
    """One network with an `If` for each stage.

    Args:
        traces: The exports by their depths, such as 'TTFF'; in the first no stage is skipped. Together they
            show every stage skipped and run, and one that follows the stage before all four pairs.
        follows: Of each stage, whether it depends on the flag of the stage before, too.

    Returns:
        The network of the first export with a second input `skip`, a bool for each stage.
    """
    full = next(iter(traces.values()))
    graph = full.model.graph
    stage_of = {end: i for i, (_, end) in enumerate(full.stages)}
    begins = {begin for begin, _ in full.stages}
    outputs = {value.name for value in graph.output}
    outer = Extractor(full.model).extract_model(list(stage_of), sorted(begins | outputs)).graph
    turned = _turned(full)
    branches, known = {}, {}
    for depth, trace in traces.items():
        names = names_of_weights(trace.model.graph.initializer, known)
        for theirs, ours in zip(trace.stages, full.stages, strict=True):
            names.update(zip(theirs, ours, strict=True))  # what lies outside of an `If` is named as in `full`
        letters = [depth[i] + depth[i - 1] * follows[i] for i in range(len(depth))]
        branches = {**branches, **_branches(trace, letters, names, branches)}
    for (i, _), branch in branches.items():
        _turn(branch, full.stages[i][1] in turned, turned)
    place_weights(outer, branches.values())

    # By their outputs, because not all nodes have names.
    nodes, kept = [], {name for node in outer.node for name in node.output}
    read_outside = outputs.union(*(node.input for node in outer.node))
    for node in graph.node:
        made = set(node.output)
        if kept & made:
            nodes.append(node)
        for begin in sorted(turned.keys() & made - stage_of.keys()):
            nodes.append(_transpose(begin, turned[begin], LAST))
        for end in stage_of.keys() & made:
            nodes += _choice(stage_of[end], turned.get(end, end), branches)
            if end in turned and end in read_outside:
                nodes.append(_transpose(turned[end], end, FIRST))
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


def _turned(full: Trace) -> dict[str, str]:
    """The names of the maps in eight bits between stages, by what they are called with their channels first.

    Convolutions in eight bits have their channels last: so nothing is turned where a stage begins and ends.
    """
    kinds = {value.name: value.type.tensor_type for value in full.model.graph.value_info}
    borders = {name for pair in full.stages for name in pair if name in kinds}
    maps = [n for n in borders if kinds[n].elem_type == TensorProto.UINT8 and len(kinds[n].shape.dim) == 4]
    return {name: f'{name}.last' for name in maps}


def _turn(branch: GraphProto, output: bool, turned: Mapping[str, str]) -> None:
    """Lets a branch take maps whose channels are last, and give such a one, if its output is one of them."""
    nodes = list(branch.node)
    for name in sorted(turned.keys() & {name for node in nodes for name in node.input}):
        first = f'{branch.name}.{name}'
        for node in nodes:
            node.input[:] = [first if each == name else each for each in node.input]
        nodes.insert(0, _transpose(turned[name], first, FIRST))
    if output:
        name = branch.output[0].name
        branch.output[0].name += '.last'
        nodes.append(_transpose(name, branch.output[0].name, LAST))
    del branch.node[:]
    branch.node.extend(nodes)


def _transpose(source: str, name: str, order: Sequence[int]) -> NodeProto:
    return helper.make_node('Transpose', [source], [name], name, perm=order)


def names_of_weights(weights: Iterable[TensorProto], known: dict[tuple, str]) -> dict[str, str]:
    """How the weights of an export are called in the file: where equal, as those of the exports before it.

    Args:
        known: The names of all weights so far by what they hold; those of this export are added.
    """
    names, taken = {}, set(known.values())
    for weight in weights:
        values = numpy_helper.to_array(weight)
        content = weight.data_type, values.shape, hashlib.sha256(values.tobytes()).digest()
        if content not in known:
            known[content] = weight.name
            while known[content] in taken:
                known[content] += '.T'
        names[weight.name] = known[content]
    return names


def _branches(
    trace: Trace, letters: Sequence[str], names: Mapping[str, str], known: Collection[tuple[int, str]]
) -> dict[tuple[int, str], GraphProto]:
    """What an export computes in each stage, with its weights, under names that no other branch has.

    Args:
        letters: Of each stage, those of the flags on which it depends, its own first.
        names: What is outside of the branches, by its name in the export.
        known: The branches that earlier exports gave; they are left out.

    Returns:
        The branches by the number of the stage and its letters.
    """
    extractor = Extractor(trace.model)
    borders = {name for pair in trace.stages for name in pair}
    branches = {}
    for i, (_, end) in enumerate(trace.stages):
        if (i, letters[i]) in known:
            continue
        branch = extractor.extract_model(sorted(borders - {end}), [end]).graph
        branch.name = f'stage.{i}{letters[i]}'
        # The graphs of an `If` have no inputs: they read the tensors around them by name.
        made = {name for node in branch.node for name in node.output} - borders
        shapes = [value for value in branch.value_info if value.name in made]
        del branch.input[:], branch.value_info[:]
        branch.value_info.extend(shapes)
        branch.output[0].CopyFrom(_without_sizes(branch.output[0], end))
        prefix = f'{letters[i]}{i}.'
        # Scales and zero points have to lie where they are used, or onnxruntime does not compute in integers.
        own = [w.name for w in branch.initializer if _is_quantised(branch) and len(w.dims) < 2]
        own = {name: prefix + name for name in own}
        add_prefix_graph(branch, prefix, rename_initializers=False, inplace=True, name_map={**names, **own})
        branches[i, letters[i]] = branch
    return branches


def _without_sizes(value: ValueInfoProto, name: str) -> ValueInfoProto:
    """The type of a tensor and how many axes it has, but not their sizes, which each export names anew.

    Without the number of axes onnxruntime would not turn convolutions in eight bits.
    """
    kind = value.type.tensor_type
    return helper.make_tensor_value_info(name, kind.elem_type, [None] * len(kind.shape.dim))


def place_weights(outer: GraphProto, branches: Collection[GraphProto]) -> None:
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


def _choice(i: int, end: str, branches: Mapping[tuple[int, str], GraphProto]) -> list[NodeProto]:
    """Nodes that compute `end` by one of the branches of stage `i`, as the flags say."""
    flag = read_flag(i)
    pairs = [letters for stage, letters in branches if stage == i and len(letters) == 2]
    if pairs and any(map(_is_quantised, branches.values())):
        return [*flag, *_one_after_another(i, end, {letters: branches[i, letters] for letters in pairs})]
    return [*flag, _if(i, end, f'stage.{i}', *(_branch(i, end, letter, branches) for letter in 'TF'))]


def read_flag(i: int) -> list[NodeProto]:
    """Nodes that read `flag.{i}` out of the input `skip`."""
    index = numpy_helper.from_array(np.array(i), f'flag.{i}.index')
    return [
        helper.make_node('Constant', [], [index.name], name=index.name, value=index),
        helper.make_node('Gather', ['skip', index.name], [f'flag.{i}'], name=f'flag.{i}'),
    ]


def _is_quantised(branch: GraphProto) -> bool:
    return any(node.op_type == 'QuantizeLinear' for node in branch.node)


def _one_after_another(i: int, end: str, branches: Mapping[str, GraphProto]) -> Iterator[NodeProto]:
    """An `If` for each pair of flags, which computes the stage or passes on what the one before it gives.

    onnxruntime does not prepare the weights of an `If` inside of another one, and would do so at each run.
    """
    before = f'{end}.none'
    kind = next(iter(branches.values())).output[0].type.tensor_type
    nothing = helper.make_tensor(before, kind.elem_type, [0] * len(kind.shape.dim), [])
    yield helper.make_node('Constant', [], [before], name=before, value=nothing)
    for flag in (i, i - 1):
        name = f'stage.{i}.run{flag}'
        yield helper.make_node('Not', [f'flag.{flag}'], [name], name=name)
    for number, (letters, branch) in enumerate(branches.items(), 1):
        name = f'stage.{i}{letters}'
        flags = [
            f'flag.{j}' if letter == 'T' else f'stage.{i}.run{j}'
            for j, letter in zip((i, i - 1), letters, strict=True)
        ]
        yield helper.make_node('And', flags, [f'{name}.chosen'], name=f'{name}.chosen')
        passed = f'{name}.passed'
        identity = helper.make_node('Identity', [before], [passed], name=passed)
        other = helper.make_graph([identity], passed, [], [_without_sizes(branch.output[0], passed)])
        before = end if number == len(branches) else f'{end}.{letters}'
        yield helper.make_node(
            'If', [f'{name}.chosen'], [before], name=name, then_branch=branch, else_branch=other
        )


def _branch(i: int, end: str, letter: str, branches: Mapping[tuple[int, str], GraphProto]) -> GraphProto:
    """What a stage computes, skipped or run: a graph of an export, or a choice of two by the flag before."""
    if (i, letter) in branches:
        return branches[i, letter]
    name, inner = f'stage.{i}{letter}', f'{letter}{i}.{end}'
    skipped, run = (branches[i, letter + before] for before in 'TF')
    node = _if(i - 1, inner, name, skipped, run)
    return helper.make_graph([node], name, [], [_without_sizes(run.output[0], inner)])


def _if(flag: int, output: str, name: str, skipped: GraphProto, run: GraphProto) -> NodeProto:
    return helper.make_node('If', [f'flag.{flag}'], [output], name, then_branch=skipped, else_branch=run)

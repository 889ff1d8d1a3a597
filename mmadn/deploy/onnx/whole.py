"""Puts the heads of a detector behind the feature maps that an export computes."""

import itertools
import warnings
from collections.abc import Mapping, Sequence

import onnx_ir
import torch
from mmcv.ops import MultiScaleDeformableAttention, RoIAlign
from mmdet.models.detectors import DetectionTransformer
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper
from onnx.compose import add_prefix_graph
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ...errors import FailedError, InputError
from .comparing import Progress, at_depth
from .detectors import TRANSLATIONS, last_head, predict, traceable
from .joining import names_of_weights, place_weights, read_flag
from .tracing import outputs_of, tidy

NAMES = 'dets', 'labels', 'masks'
INSTEAD = 'features=True (--features) writes the feature maps of backbone and neck'


def check_detector(model: nn.Module) -> None:
    """Refuses at once what is known to have no form in ONNX; raises ValueError that says why."""
    name, head = type(model).__name__, last_head(model)
    settings = getattr(head, 'test_cfg', None)
    if not settings:
        raise InputError(f'{name} has no roi_head or bbox_head with a test_cfg; {INSTEAD}')
    if not settings.get('max_per_img', -1) > 0:
        raise InputError(
            f'test_cfg of {type(head).__name__} has no max_per_img, which a file needs; {INSTEAD}'
        )
    for module in model.modules():
        cfg = getattr(module, 'test_cfg', None) or {}
        nms = cfg.get('nms') or {}
        if nms.get('type', 'nms') != 'nms' or nms.get('offset', 0) != 0:
            raise InputError(
                f"test_cfg has nms={dict(nms)}: a file takes type='nms' with offset=0 alone; {INSTEAD}"
            )
        if isinstance(module, RoIAlign) and module.pool_mode == 'avg' and not module.use_torchvision:
            continue
        operator = type(module).__module__.startswith('mmcv.ops.')
        if operator and not isinstance(module, MultiScaleDeformableAttention):
            raise InputError(f'{name} has a {type(module).__name__} that has no form in ONNX; {INSTEAD}')


class _Heads(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(
        self, features: list[Tensor], size: Tensor, padded: Tensor, score_thr: Tensor
    ) -> tuple[Tensor, ...]:
        """Detections of one image.

        Args:
            features: Of shapes (C, h, w).
            size: Height and width of the image.
            padded: The same with its padding, of which DETRs have to know.
        """
        size = size[0].item(), size[1].item()
        whole = (padded[0].item(), padded[1].item()) if isinstance(self.model, DetectionTransformer) else size
        (found,) = predict(self.model, [feature[None] for feature in features], [size], whole, score_thr)
        outputs = torch.cat([found.bboxes, found.scores[:, None]], 1), found.labels
        if 'masks' not in found:
            return outputs
        if not getattr(self.model, 'roi_head', None):
            raise ValueError('its masks are not those of boxes')
        return *outputs, found.masks


def trace_heads(model: nn.Module, shape: Sequence[int], dynamic: bool, opset: int | None) -> ModelProto:
    """Exports the heads of a detector for one image.

    Args:
        model: In eval mode.
        shape: Channels, height and width of the images.
        dynamic: Whether height and width are free.
        opset: Of ONNX; None for torch's choice.

    Raises:
        RuntimeError: They compute something that cannot be exported, or only for one size.
    """
    features = _example_features(model, shape, dynamic)
    free = {1: Dim.AUTO, 2: Dim.AUTO} if dynamic else None
    size = torch.tensor(shape[1:])
    example = features, size, size.clone(), torch.tensor(0.05)  # of one tensor twice a trace makes one input
    try:
        with warnings.catch_warnings(), traceable(model):
            warnings.simplefilter('ignore')
            sizes = [[free] * len(features), None, None, None]
            program = torch.export.export(_Heads(model), example, dynamic_shapes=sizes, strict=False)
            if dynamic:
                _check_guards(program, features)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=opset,
                input_names=[*(f'feature_{i}' for i in range(len(features))), 'size', 'padded', 'score_thr'],
                custom_translation_table=TRANSLATIONS,
            ).model
    except FailedError:
        raise
    except Exception as error:  # whatever mmdet's code of a head does that cannot be traced
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FailedError(
            f'the heads of {type(model).__name__} cannot be exported ({reason}); {INSTEAD}'
        ) from error
    tidy(exported)
    return onnx_ir.to_proto(exported)


def trace_at_depths(
    model: nn.Module,
    shape: Sequence[int],
    dynamic: bool,
    opset: int | None,
    stages: int,
    progress: Progress,
) -> dict[str, ModelProto]:
    """The heads, as `trace_heads` gives them, at all depths of their own parts.

    Args:
        stages: How many flags these parts have, which are the last of a depth; without any there is one
            export, by no letter.

    Returns:
        The exports by the letters of these flags, first that in which nothing is skipped.
    """
    heads = {}
    for letters in map(''.join, itertools.product('FT', repeat=stages)):
        progress(f'exporting the heads{letters and ", their own parts at " + letters}')
        with at_depth(model, model.skip[:-stages] + letters if stages else None):
            heads[letters] = trace_heads(model, shape, dynamic, opset)
    return heads


def _example_features(model: nn.Module, shape: Sequence[int], dynamic: bool) -> list[Tensor]:
    """Feature maps of one image; where sizes are free, none has a side of 1, which a trace takes as fixed."""
    channels, height, width = shape
    device = next(model.parameters()).device
    for larger in (1, 2, 4, 8) if dynamic else (1,):
        images = torch.zeros(1, channels, larger * height, larger * width, device=device)
        features = [feature[0] for feature in outputs_of(model, images).values()]
        if min(min(feature.shape[1:]) for feature in features) > 1:
            break
    return features


def _check_guards(program: ExportedProgram, features: list[Tensor]) -> None:
    """Raises RuntimeError for a trace in which something is true of its own sizes alone."""
    for guard in getattr(program, '_guards_code', None) or ():
        for down, across in (1, 2), (3, 1), (5, 7):
            others = [
                torch.empty(c, h * down + down // 2, w * across, device='meta')
                for c, h, w in (feature.shape for feature in features)
            ]
            if not eval(guard, {'L': {'features': others}}):
                raise FailedError(
                    f'the heads would only fit images of which {guard}; give --fixed-size, or: {INSTEAD}'
                )


def append_heads(exported: ModelProto, heads: Mapping[str, ModelProto], model: nn.Module) -> None:
    """Lets the heads run on the feature maps of each image, which `exported` computes.

    The least score is an input with a default, the one of the settings.

    Args:
        heads: What `trace_at_depths` gave.
    """
    graph = exported.graph
    features = [value.name for value in graph.output]
    score_thr = last_head(model).test_cfg.get('score_thr')
    stages = len(next(iter(heads)))
    first = model.num_skippable_stages - stages if stages else 0
    numbers = range(first, first + stages)
    graph.node.extend(node for i in numbers for node in read_flag(i))
    body = _joined(heads, [f'flag.{i}' for i in numbers])
    names = NAMES[: len(body.output)]
    graph.node.extend(
        [
            helper.make_node('Shape', ['images'], ['padded'], 'padded', start=2),
            helper.make_node(
                'Scan', [*features, 'sizes'], names, 'heads', body=body, num_scan_inputs=len(features) + 1
            ),
        ]
    )
    graph.input.append(helper.make_tensor_value_info('sizes', TensorProto.INT64, ['batch', 2]))
    if score_thr is not None:
        graph.input.append(helper.make_tensor_value_info('score_thr', TensorProto.FLOAT, []))
        graph.initializer.append(helper.make_tensor('score_thr', TensorProto.FLOAT, [], [score_thr]))
    del graph.output[:]
    for name, value in zip(names, body.output, strict=True):
        kind = value.type.tensor_type
        shape = ['batch', *(size.dim_value for size in kind.shape.dim)]
        graph.output.append(helper.make_tensor_value_info(name, kind.elem_type, shape))


def _joined(heads: Mapping[str, ModelProto], flags: Sequence[str]) -> GraphProto:
    """The heads of an image as one graph that chooses by the flags, with the weights that they share once."""
    known, branches = {}, {}
    *inputs, _, _ = next(iter(heads.values())).graph.input  # the last two are the same for all images
    outside = {value.name: f'heads.{value.name}' for value in inputs}
    for letters, model in heads.items():
        branch = branches[letters] = model.graph
        weights = names_of_weights(branch.initializer, known)
        names = {**outside, **{theirs: f'heads.{ours}' for theirs, ours in weights.items()}}
        del branch.input[:], branch.value_info[:]
        add_prefix_graph(branch, f'heads.{letters}', rename_initializers=False, inplace=True, name_map=names)
    common = GraphProto()
    place_weights(common, branches.values())
    body = _choice(branches, flags)
    body.initializer.extend(common.initializer)
    for value in inputs:
        value.name = outside[value.name]
    body.input.extend(inputs)
    return body


def _choice(branches: Mapping[str, GraphProto], flags: Sequence[str], letters: str = '') -> GraphProto:
    """A graph that chooses one of the branches by the flags from that of the next letter on."""
    if letters in branches:
        return branches[letters]
    skipped, run = (_choice(branches, flags, letters + letter) for letter in 'TF')
    outputs = []
    for name, value in zip(NAMES, run.output, strict=False):
        outputs.append(ValueInfoProto())
        outputs[-1].CopyFrom(value)
        outputs[-1].name = f'heads.{letters}.{name}'
    names = [value.name for value in outputs]
    node = helper.make_node(
        'If', [flags[len(letters)]], names, f'heads.{letters}', then_branch=skipped, else_branch=run
    )
    return helper.make_graph([node], f'heads.{letters}', [], outputs)

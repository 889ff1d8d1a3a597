"""Makes mmdet's own prediction traceable, so that whole detectors can be exported.

Where mmdet's tensors get shorter, those of a trace keep their length: what is filtered out has a score of
-inf or NaN, and what is missing is -1. So no number of boxes depends on what is in an image, and mmdet's
code is traced, for one image, as it is but for the few functions that are replaced here.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import DETR, DeformableDETR, DetectionTransformer
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, InstanceData
from onnxscript import opset18 as op
from torch import Tensor, nn
from torch.utils._pytree import tree_map

NOTHING = -float('inf')  # the score of what is filtered out
_stock_items, _stock_boxes_by_feat = InstanceData.__getitem__, BBoxHead.predict_by_feat

# Two operators that ONNX has and torch has not. Nothing but a trace calls them.
torch.library.define('mmadn::nms', '(Tensor boxes, Tensor scores, float iou, int most) -> Tensor')
torch.library.define(
    'mmadn::roi_align',
    '(Tensor level, Tensor boxes, int height, int width, float scale, int samples, bool aligned) -> Tensor',
)


@torch.library.register_fake('mmadn::nms')
def _(boxes, scores, iou, most):
    return boxes.new_empty(most, dtype=torch.int64)


@torch.library.register_fake('mmadn::roi_align')
def _(level, boxes, height, width, scale, samples, aligned):
    return level.new_empty(boxes.shape[0], level.shape[1], height, width)


def _nms_in_onnx(boxes, scores, iou: float, most: int):
    """The indices of those kept, the best first, and -1 up to `most`."""
    boxes = op.Reshape(boxes, op.Constant(value_ints=[1, -1, 4]))  # OpenVINO has to see that there are four
    limits = op.Constant(value_ints=[most]), op.Constant(value_floats=[iou]), op.Constant(value_floats=[-1.0])
    kept = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [0, 1]), *limits)
    kept = op.Squeeze(op.Slice(kept, [2], [3], [1]), [1])
    missing = op.Sub(op.Constant(value_ints=[most]), op.Shape(kept))
    return op.Pad(kept, op.Concat(op.Constant(value_ints=[0]), missing, axis=0), op.Constant(value_int=-1))


def _roi_align_in_onnx(level, boxes, height: int, width: int, scale: float, samples: int, aligned: bool):
    boxes = op.Reshape(boxes, op.Constant(value_ints=[-1, 4]))  # as above
    return op.RoiAlign(
        level,
        boxes,
        op.Expand(op.Constant(value_int=0), op.Shape(boxes, start=0, end=1)),  # all of one image
        output_height=height,
        output_width=width,
        spatial_scale=scale,
        sampling_ratio=max(samples, 0),
        coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
    )


TRANSLATIONS = {
    torch.ops.mmadn.nms.default: _nms_in_onnx,
    torch.ops.mmadn.roi_align.default: _roi_align_in_onnx,
}


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor; of the index -1 one of -1."""
    there = (index >= 0).view(-1, *[1] * (values.dim() - 1))
    return torch.where(there, values[index.clamp(min=0)], -1)


def _filter(scores: Tensor, score_thr: float | Tensor, topk: int, results=None) -> tuple:
    """`filter_scores_and_topk` whose result has the same length whatever the scores are."""
    classes = scores.shape[1]
    flat = torch.where(scores > score_thr, scores, NOTHING).reshape(-1)
    flat, index = flat.topk(torch.sym_min(topk, flat.shape[0]) if topk > 0 else flat.shape[0])
    rows, labels = index // classes, index % classes
    return flat, labels, rows, tree_map(lambda values: values[rows], results)


def _batched_nms(
    boxes: Tensor, scores: Tensor, idxs: Tensor, nms_cfg: dict, class_agnostic: bool = False
) -> tuple[Tensor, Tensor]:
    """mmcv's function, which keeps `max_num`; smaller boxes than `min_bbox_size` are never kept."""
    scores = torch.where(scores > nms_cfg.get('score_threshold', -1), scores, NOTHING)
    if (least := nms_cfg.get('min_bbox_size', -1)) >= 0:
        large = (boxes[:, 2:] - boxes[:, :2] > least).all(1)
        scores = torch.where(large, scores, NOTHING)
    apart = boxes
    if not nms_cfg.get('class_agnostic', class_agnostic):
        furthest = torch.where((scores > NOTHING)[:, None], boxes, NOTHING).max().clamp(min=0)
        apart = boxes + (idxs.to(boxes) * (furthest + 1))[:, None]
    kept = torch.ops.mmadn.nms(apart, scores, nms_cfg['iou_threshold'], nms_cfg['max_num'])
    return torch.cat([_take(boxes, kept), _take(scores, kept)[:, None]], 1), kept


def _multiclass_nms(
    boxes: Tensor,
    scores: Tensor,
    score_thr: float | Tensor,
    nms_cfg: dict,
    max_num: int,
    score_factors: Tensor | None = None,
    box_dim: int = 4,
) -> tuple[Tensor, Tensor]:
    number, classes = scores.shape[0], scores.shape[1] - 1
    boxes = boxes.view(number, -1, box_dim).expand(-1, classes, box_dim).reshape(-1, box_dim)
    labels = torch.arange(classes, device=scores.device).repeat(number)
    weighted = scores if score_factors is None else scores * score_factors[:, None]
    scores = torch.where(scores > score_thr, weighted, NOTHING)[:, :-1].reshape(-1)
    dets, kept = _batched_nms(boxes, scores, labels, dict(nms_cfg, max_num=max_num))
    return dets, _take(labels, kept)


def _to_rois(bbox_list: Sequence[Tensor]) -> Tensor:
    """`bbox2roi`, which gives what is missing the number -1 of an image."""
    rois = bbox2roi(bbox_list)
    missing = (rois[:, 1:] == -1).all(1, keepdim=True)
    return torch.cat([torch.where(missing, -1, rois[:, :1]), rois[:, 1:]], 1)


def _items(self: InstanceData, item: object) -> InstanceData:
    if not isinstance(item, Tensor) or item.dtype != torch.int64:
        return _stock_items(self, item)
    taken = InstanceData()
    for name, values in self.items():
        taken[name] = _take(values, item)
    return taken


def _extract(
    self: SingleRoIExtractor, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor=None
) -> Tensor:
    """Each RoI on its level alone, as mmdet's, but put together from parts of any length."""
    levels = self.map_roi_levels(rois, len(feats))
    if roi_scale_factor is not None and len(feats) > 1:
        rois = self.roi_rescale(rois, roi_scale_factor)
    parts = [
        layer(feature, rois[(levels == level).nonzero()[:, 0]])
        for level, (layer, feature) in enumerate(zip(self.roi_layers, feats, strict=True))
    ]
    number = torch.arange(levels.shape[0], device=levels.device)
    order = (levels * levels.shape[0] + number).argsort()  # in which the parts are
    return torch.cat(parts)[order.argsort()]


def _roi_align(self: RoIAlign, features: Tensor, rois: Tensor) -> Tensor:
    return torch.ops.mmadn.roi_align(
        features, rois[:, 1:], *self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
    )


def _rpn_boxes(self: RPNHead, img_meta: dict, cfg: dict | None, **kwargs) -> InstanceData:
    """The best of each level; mmdet's own asks for their number, which would fix that of the trace."""
    cfg = cfg or self.test_cfg
    levels = []
    maps = zip(*(kwargs[name] for name in ('cls_score_list', 'bbox_pred_list', 'mlvl_priors')), strict=True)
    for level, (scores, deltas, priors) in enumerate(maps):
        scores = scores.permute(1, 2, 0).reshape(-1, self.cls_out_channels)
        scores = scores.sigmoid() if self.use_sigmoid_cls else scores.softmax(-1)[:, :-1]
        deltas = deltas.permute(1, 2, 0).reshape(-1, self.bbox_coder.encode_size)
        scores, labels, _, (deltas, priors) = _filter(scores, -1, cfg.get('nms_pre', -1), [deltas, priors])
        levels.append((scores, deltas, priors, torch.full_like(labels, level)))
    scores, deltas, priors, numbers = map(torch.cat, zip(*levels, strict=True))
    boxes = self.bbox_coder.decode(priors, deltas, max_shape=img_meta['img_shape'])
    results = InstanceData(bboxes=boxes, scores=scores, level_ids=numbers)
    return self._bbox_post_process(results=results, cfg=cfg, img_meta=img_meta)


def _boxes_by_feat(self: BBoxHead, rois: Sequence[Tensor], cls_scores: Sequence[Tensor], **kwargs) -> list:
    """No class for proposals that are missing: what is not a number passes no threshold."""
    pairs = zip(rois, cls_scores, strict=True)
    cls_scores = [torch.where(roi[:, :1] >= 0, scores, float('nan')) for roi, scores in pairs]
    return _stock_boxes_by_feat(self, rois=rois, cls_scores=cls_scores, **kwargs)


def _mask_probabilities(
    self: FCNMaskHead, mask_preds: Tensor, labels: Tensor, activate_map: bool = False, **kwargs
) -> Tensor:
    if not self.class_agnostic:
        index = labels.clamp(min=0)[:, None, None, None].expand(-1, -1, *mask_preds.shape[2:])
        mask_preds = mask_preds.gather(1, index)
    return mask_preds[:, 0] if activate_map else mask_preds[:, 0].sigmoid()


def _masks_of_those_found(stock: Callable) -> Callable:
    """`_mask_forward` of an RoI head on the detections that are there, which are the first, or on one."""

    def forward(self: StandardRoIHead, *args) -> dict:
        *before, rois = args
        number = (rois[:, 0] >= 0).sum().clamp(min=1).item()
        torch._check(number >= 1)
        torch._check(number <= rois.shape[0])
        results = stock(self, *before, rois.narrow(0, 0, number))
        index = torch.arange(rois.shape[0], device=rois.device)
        index = torch.where(index < number, index, 0)
        return {name: values[index] for name, values in results.items()}

    return forward


class _Shapes(list):
    """Heights and widths of feature maps: numbers, of which a trace knows more than of a tensor of them."""

    def __getitem__(self, item: tuple) -> Tensor | np.ndarray:
        where, side = item
        sides = [pair[side] for pair in self]
        return torch.stack([*map(torch.scalar_tensor, sides)]) if where is ... else np.array(sides, object)


def _pre_transformer(stock: Callable) -> Callable:
    """`pre_transformer` of a DETR, whose masks do not depend on whether there is padding."""

    def pre_transformer(self: nn.Module, feats: Sequence[Tensor], samples: Sequence[DetDataSample]) -> tuple:
        (sample,) = samples
        sides = [*zip(sample.img_shape, sample.batch_input_shape, strict=True)]

        def padding(masks: Tensor, size: Sequence[int]) -> Tensor:
            rows, columns = (
                torch.arange(n, device=masks.device) * whole >= side * n
                for n, (side, whole) in zip(size, sides, strict=True)
            )
            return (rows[:, None] | columns)[None, None]

        padded = SimpleNamespace(img_shape=(1, 1), batch_input_shape=(2, 2))
        with patch('torch.nn.functional.interpolate', padding):
            inputs = stock(self, feats, [padded])
        for each in inputs:
            if 'spatial_shapes' in each:
                each['spatial_shapes'] = _Shapes(feat.shape[2:] for feat in feats)
        return inputs

    return pre_transformer


# What DETRs alone use of torch, for sizes that need not be known: `linspace` is in steps of 1.
TORCH = {
    '_shape_as_tensor': lambda feat: torch.stack([torch.scalar_tensor(side) for side in feat.shape]).long(),
    'linspace': lambda start, end, steps, **kwargs: torch.arange(steps, **kwargs) + start,
}
FUNCTIONS = {  # in whichever module of mmdet they are
    'filter_scores_and_topk': _filter,
    'batched_nms': _batched_nms,
    'multiclass_nms': _multiclass_nms,
    'bbox2roi': _to_rois,
}
METHODS = {
    (InstanceData, '__setattr__'): BaseDataElement.__setattr__,  # the stock ones compare lengths
    (InstanceData, '__setitem__'): BaseDataElement.__setattr__,
    (InstanceData, '__getitem__'): _items,
    (RoIAlign, 'forward'): _roi_align,
    (SingleRoIExtractor, 'forward'): _extract,
    (RPNHead, '_predict_by_feat_single'): _rpn_boxes,
    (BBoxHead, 'predict_by_feat'): _boxes_by_feat,
    (FCNMaskHead, '_predict_by_feat_single'): _mask_probabilities,
    (StandardRoIHead, '_mask_forward'): _masks_of_those_found(StandardRoIHead._mask_forward),
    (CascadeRoIHead, '_mask_forward'): _masks_of_those_found(CascadeRoIHead._mask_forward),
    (DETR, 'pre_transformer'): _pre_transformer(DETR.pre_transformer),
    (DeformableDETR, 'pre_transformer'): _pre_transformer(DeformableDETR.pre_transformer),
}


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Within the block mmdet's prediction by a model, for one image, can be traced."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            for function in FUNCTIONS.keys() & vars(module).keys() if name.startswith('mmdet.') else ():
                stack.enter_context(patch.object(module, function, FUNCTIONS[function]))
        for (owner, name), method in METHODS.items():
            stack.enter_context(patch.object(owner, name, method))
        if isinstance(model, DetectionTransformer):
            stack.enter_context(patch.multiple(torch, **TORCH))
        for module in model.modules():
            cfg = getattr(module, 'test_cfg', None)
            if cfg and cfg.get('nms'):
                cfg = copy.deepcopy(cfg)
                cfg.nms.update(max_num=cfg.max_per_img, min_bbox_size=cfg.pop('min_bbox_size', -1))
                stack.enter_context(patch.object(module, 'test_cfg', cfg))
        yield


class _Settings(ConfigDict):
    """A copy of it has the very same values: a tensor that is traced cannot be copied."""

    def __deepcopy__(self, memo: dict) -> ConfigDict:
        return copy.copy(self)


def last_head(model: nn.Module) -> nn.Module | None:
    """The head whose boxes are the detections, with the settings of the test."""
    return getattr(model, 'roi_head', None) or getattr(model, 'bbox_head', None)


def predict(
    model: nn.Module,
    features: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    padded: tuple[int, int],
    score_thr: float | Tensor | None,
) -> list[InstanceData]:
    """What mmdet detects in images, of which the feature maps are known, in pixels of the input.

    Args:
        features: Those of the neck, of shapes (N, C, h, w).
        sizes: Height and width of each image.
        padded: Height and width of the input.
        score_thr: Replaces that of the settings, if they have any.
    """
    samples = [DetDataSample() for _ in sizes]
    for sample, size in zip(samples, sizes, strict=True):
        meta = dict(img_shape=size, ori_shape=size, pad_shape=padded, batch_input_shape=padded)
        for name, value in dict(meta, scale_factor=(1.0, 1.0)).items():
            sample.set_field(value, name, field_type='metainfo')  # the constructor would copy sizes, too
    head = last_head(model)
    settings = _Settings(head.test_cfg)
    if 'score_thr' in settings:
        settings.score_thr = score_thr
    extracted = patch.object(type(model), 'extract_feat', lambda *args: tuple(features))
    with extracted, patch.object(head, 'test_cfg', settings):
        return [sample.pred_instances for sample in model.predict(None, samples, rescale=False)]

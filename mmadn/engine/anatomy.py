"""Where a model, whatever it is, has its adaptive backbone and what comes after it, by their names in it."""

from torch import nn

from ..depth import AdaptiveDepth, depth_of


def backbone_name(model: nn.Module) -> str:
    """Such as 'backbone', and 'detector.backbone' in a tracker."""
    depth = depth_of(model)
    backbone = depth if isinstance(depth, AdaptiveDepth) else depth.backbone
    return next(name for name, module in model.named_modules() if module is backbone)


def beside_backbone(model: nn.Module, part: str) -> str | None:
    """The name of a part, such as the neck, of the smallest model around the backbone that has one."""
    around = backbone_name(model)
    while around:
        around = around.rpartition('.')[0]
        if getattr(model.get_submodule(around), part, None) is not None:
            return f'{around}.{part}'.lstrip('.')
    return None


def default_features(model: nn.Module) -> list[str]:
    """The module whose outputs are all that the heads see of an image: the neck, or else the backbone.

    Without a neck these are all maps that the backbone gives: four in MaskFormer, one in C4 and DC5. An
    encoder that has a depth comes beside it.
    """
    seen, encoder = beside_backbone(model, 'neck') or backbone_name(model), beside_backbone(model, 'encoder')
    return [seen, encoder] if _adaptive(model, encoder) else [seen]


def queries(model: nn.Module) -> str | None:
    """The head of a decoder that has a depth, if each class of a query has a sigmoid of its own."""
    decoder, head = beside_backbone(model, 'decoder'), beside_backbone(model, 'bbox_head')
    return head if _adaptive(model, decoder) and model.get_submodule(head).loss_cls.use_sigmoid else None


def _adaptive(model: nn.Module, name: str | None) -> bool:
    return name is not None and isinstance(model.get_submodule(name), AdaptiveDepth)


def logits(model: nn.Module) -> list[str]:
    """The heads that give logits, of shape (N, C) in a classifier and of shape (N, C, H, W) in a segmentor.

    A detector has none, and neither have segmentors that predict masks, such as Mask2Former. Of a cascade
    of decode heads each is one, unless it classifies points that are drawn anew in each pass (PointRend).
    """
    head, decoder = (beside_backbone(model, part) for part in ('head', 'decode_head'))
    if head or not decoder:
        return [head] if head else []
    heads = model.get_submodule(decoder)
    names = [f'{decoder}.{i}' for i in range(len(heads))] if isinstance(heads, nn.ModuleList) else [decoder]
    return [name for name in names if _classifies_pixels(model.get_submodule(name))]


def _classifies_pixels(head: nn.Module) -> bool:
    return hasattr(head, 'cls_seg') and not hasattr(head, 'get_points_train')

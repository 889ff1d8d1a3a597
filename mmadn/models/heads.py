from mmpretrain.models import LinearClsHead
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class DropoutLinearClsHead(LinearClsHead):
    """mmpretrain's LinearClsHead with dropout before the classifier, as MobileNetV2 has it.

    Args:
        dropout_rate: The probability that a feature is dropped.
        *args, **kwargs: What mmpretrain's LinearClsHead takes.
    """

    def __init__(self, *args, dropout_rate: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = nn.Dropout(dropout_rate)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.dropout(super().pre_logits(feats))

from os import PathLike
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain import get_model
from torch import Tensor, nn

from ..depth import unwrap
from ..errors import InputError
from ..registry import HOOKS
from .losses import kl_divergence
from .train_step_hook import TrainStepHook, record


class Teacher:
    """A trained classifier that teaches another one, the student.

    Args:
        config: Path of the teacher's config, or what else `mmpretrain.get_model` takes.
        checkpoint: Path of its checkpoint, or what else `mmpretrain.get_model` takes.
        weight: Weight of its KL term in the student's loss, above 0 and at most 1; the labels keep the rest.
        temperature: Temperature of the KL term, above 0.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        config: str | PathLike | Config,
        checkpoint: str | bool,
        weight: float = 0.9,
        temperature: float = 2.0,
    ) -> None:
        if not 0 < weight <= 1:
            raise InputError(f'teacher weight={weight!r}: give a number above 0, at most 1')
        if not temperature > 0:
            raise InputError(f'teacher temperature={temperature!r}: give a number above 0')
        self.config, self.checkpoint = config, checkpoint
        self.weight, self.temperature = weight, temperature

    def build(self, student: nn.Module) -> None:
        """Loads the teacher on the device of the student, whose preprocessed images it gets.

        Raises:
            ValueError: The student's images are normalised otherwise than the teacher's were.
        """
        device = next(student.parameters()).device
        self.model = get_model(self.config, pretrained=self.checkpoint, device=device).eval()
        theirs, ours = _normalisation(self.model), _normalisation(student)
        for name in theirs:
            if theirs[name] != ours[name]:
                raise InputError(
                    f'the teacher {self.config} normalises images by {name}={theirs[name]}, the '
                    f'model by {ours[name]}: both see the same images, so choose one of them'
                )

    def logits(self, images: Tensor) -> Tensor:
        """The teacher's logits, of shape (N, C), of preprocessed images."""
        with torch.no_grad():
            return self.model(images, mode='tensor')

    def mix(self, loss: Tensor, logits: Tensor, taught: Tensor, topk: int | None) -> Tensor:
        """The student's loss on the labels, mixed with its divergence from the teacher.

        Args:
            loss: The student's loss on the labels.
            logits: The student's, of shape (N, C).
            taught: The teacher's, of the same images.
            topk: Only this many of the teacher's largest logits enter; None takes all.

        Raises:
            ValueError: The teacher knows another number of classes.
        """
        if taught.shape != logits.shape:
            raise InputError(
                f'the teacher {self.config} knows {taught.shape[1]} classes, the model {logits.shape[1]}'
            )
        divergence = kl_divergence(logits, taught, self.temperature, topk)
        return self.weight * divergence + (1 - self.weight) * loss


def _normalisation(model: nn.Module) -> dict[str, Any]:
    """How a model's preprocessor changes the values of an image; None and False stand for not at all."""
    preprocessor = model.data_preprocessor
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    return {
        'mean': None if mean is None else mean.flatten().tolist(),
        'std': None if std is None else std.flatten().tolist(),
        'to_rgb': any(getattr(preprocessor, name, False) for name in ('to_rgb', '_channel_conversion')),
    }


@HOOKS.register_module()
class DistillationHook(TrainStepHook):
    """Trains a stock classifier on the labels and on a teacher: the individually distilled networks.

    They are what the paper compares with in Fig. 4b. It does not say how labels and teacher are weighted:
    the default is that of `Teacher`.

    Args:
        teacher: The arguments of `Teacher`.
        topk: Only this many of the teacher's largest logits enter; None takes all.
    """

    def __init__(self, teacher: dict, topk: int | None = 500) -> None:
        self.teacher, self.topk = Teacher(**teacher), topk

    def prepare(self, runner: Runner) -> None:
        self.teacher.build(unwrap(runner.model))

    def train_step(self, model: nn.Module, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        stock = unwrap(model)
        with optim_wrapper.optim_context(model):
            data = stock.data_preprocessor(data, True)
            with record(stock, ['head']) as outputs:
                losses = model._run_forward(data, mode='loss')
            loss, logs = stock.parse_losses(losses)
            taught = self.teacher.logits(data['inputs'])
            logs['loss'] = self.teacher.mix(loss, outputs['head'][-1], taught, self.topk)
        optim_wrapper.update_params(logs['loss'])
        return logs

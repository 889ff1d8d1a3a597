"""Lets an exported file predict in place of a model, so that it is tested as the model is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from unittest.mock import patch

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...depth import SwitchableDepth, depth_of
from ...errors import InputError
from .pasting import paste_masks
from .session import describe, open_session


class ExportedFile:
    """A file from `export_onnx` that stands in for the model of a config.

    Args:
        path: Of a classifier, a whole detector or a segmentor.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file.
    """

    def __init__(self, path: str | PathLike):
        self.path, self.session = path, open_session(path, threads=torch.get_num_threads())
        self.about = describe(self.session)
        self.inputs = {value.name for value in self.session.get_inputs()}
        if self.about.get('output') not in FORWARDS:
            raise InputError(
                f'{path} gives {self.about.get("output", "what it does not say")}, which no metric takes; '
                'export a whole network'
            )

    def depths(self, skips: Sequence[str] | str) -> Sequence[str] | str:
        """What to test where `skips` are asked for, which may be 'all': of a file of one depth that one."""
        own = self.about.get('skip')
        return [own] if skips == 'all' and own not in (None, 'adaptive') else skips

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the file is not one of such a model."""
        depth = next((m for m in model.modules() if isinstance(m, SwitchableDepth)), None)
        flags = depth and depth.num_skippable_stages
        if self.about.get('flags') != flags:
            raise InputError(
                f'{self.path} has {self.about.get("flags") or "no"} flags of depth, and the model of the '
                f'config has {flags or "none"}; give the config that it was exported with'
            )
        if not hasattr(model, FORWARDS[self.about['output']][0]):
            raise InputError(
                f'{self.path} gives {self.about["output"]}, and the config has a {type(model).__name__}: '
                'give the config that it was exported with'
            )

    @contextmanager
    def predicting(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model predicts by the file, at the model's depth.

        Raises:
            ValueError: The model predicted without it.
        """
        _, name, forward = FORWARDS[self.about['output']]
        self.ran = False
        with patch.object(model, name, forward(self, model)):
            yield
        if not self.ran:
            raise InputError(
                f'{type(model).__name__} predicts in a way of its own, in which a file has no place; give '
                'test_cfg and model of the config as they were for the export'
            )

    def run(self, model: nn.Module, images: Tensor, **feeds: np.ndarray) -> list[Tensor]:
        self.ran = True
        feeds['images'] = images.float().numpy(force=True)
        if 'skip' in self.inputs:
            feeds['skip'] = np.array([letter == 'T' for letter in depth_of(model).skip])
        elif self.about.get('skip') and depth_of(model).skip != self.about['skip']:
            raise InputError(f'{self.path} has the depth {self.about["skip"]} alone; leave --skips out')
        try:
            outputs = self.session.run(None, feeds)
        except Exception as error:  # onnxruntime has a class for each error, all of them plain Exceptions
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f'{self.path} cannot take images of shape {tuple(images.shape)} ({reason}); export it for '
                'such ones, see --shape and --fixed-size'
            ) from error
        return [torch.from_numpy(output).to(images.device) for output in outputs]


def _classes(file: ExportedFile, model: nn.Module) -> Callable:
    def predict(inputs: Tensor, data_samples: list | None = None, **kwargs) -> list:
        (logits,) = file.run(model, inputs)
        return model.head._get_predictions(logits, data_samples)

    return predict


def _detections(file: ExportedFile, model: nn.Module) -> Callable:
    def predict(inputs: Tensor, data_samples: list, rescale: bool = True) -> list:
        sizes = np.array([sample.img_shape[:2] for sample in data_samples])
        results = []
        for sample, *found in zip(data_samples, *file.run(model, inputs, sizes=sizes), strict=True):
            there = found[1] >= 0
            dets, labels, *masks = (values[there] for values in found)
            factor = dets.new_tensor(sample.get('scale_factor', (1.0, 1.0)))
            boxes = dets[:, :4] / factor.repeat(2)
            result = InstanceData(bboxes=boxes, scores=dets[:, 4], labels=labels)
            if masks:
                arrays = [values.numpy(force=True) for values in (*masks, boxes)]
                pasted = paste_masks(*arrays, *sample.ori_shape[:2], file.about['mask_threshold'])
                result.masks = torch.from_numpy(pasted)
            results.append(result)
        return model.add_pred_to_datasample(data_samples, results)

    return predict


def _segments(file: ExportedFile, model: nn.Module) -> Callable:
    return lambda inputs, batch_img_metas: file.run(model, inputs)[0]


# By what a file gives: what such models alone have, the method that it takes the place of, and what makes it.
FORWARDS = {
    'logits': ('head', 'predict', _classes),
    'detections': ('add_pred_to_datasample', 'predict', _detections),
    'logits of pixels': ('encode_decode', 'encode_decode', _segments),
}

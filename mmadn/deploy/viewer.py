"""What a classifier, detector or segmentor finds in single images at its depths, and pictures of it."""

import copy
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from matplotlib.colors import to_rgb
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from mmpretrain.models import ImageClassifier

from ..depth import Skip, depth_of
from ..errors import InputError
from ..evaluation.flops import complexity
from ..evaluation.timing import timed
from ..utils.report import CLASS_COLOURS, digits, flops_unit
from .images import writing_video

MOST, LEAST = 960, 512  # pixels of the longer side of a picture; smaller images are enlarged to LEAST


class Sight(NamedTuple):
    """What was found in an image at one depth, and what that cost.

    Args:
        latency_ms: From preprocessed images to predictions.
        sample: As the model's `predict` gives it, in pixels of the image.
    """

    skip: str
    latency_ms: float
    gflops: float
    unit: tuple[float, str]  # see `flops_unit`; the same of all depths that are shown together
    sample: BaseDataElement
    remark: str = ''

    @property
    def flops(self) -> str:
        return f'{digits(self.gflops * self.unit[0])} {self.unit[1]}'

    @property
    def cost(self) -> str:
        return f'{self.skip}   {digits(self.latency_ms)} ms   {self.flops}   {self.remark}'


class Viewer:
    """Looks at single images with a model at its depths, and draws what it finds.

    Images are preprocessed as the config tests. Boxes and masks have the colour of their class, one of seven
    that the colour-blind tell apart, in turn; the pixels of a segmentor have those of its palette.

    Args:
        model: A classifier, detector or segmentor with adaptive depth, in eval mode.
        cfg: Its config.
        score_thr: What a detector scores no higher is left out.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: The config does not say how to preprocess test images.
    """

    def __init__(self, model: BaseModel, cfg: Config, score_thr: float = 0.5):
        self.model, self.score_thr = model, score_thr
        self.depth, self.classifier = depth_of(model), isinstance(model, ImageClassifier)
        dataset = (cfg.get('test_dataloader') or {}).get('dataset', {})
        if not dataset.get('pipeline'):
            raise InputError('the config has no test_dataloader, which says how images are preprocessed')
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
            loading = re.compile('LoadImage|LoadAnnotations')  # the image is there, and no annotation is
            self._pipeline = Compose(
                [step for step in dataset.pipeline if not loading.search(str(step.type))]
            )
            with DATASETS.switch_scope_and_registry(None) as registry:
                declared = dataset.get('metainfo') or getattr(registry.get(dataset.type), 'METAINFO', {})
        about = {**declared, **(getattr(model, 'dataset_meta', None) or {})}
        self._classes = about.get('classes')
        usual = [[255 * part for part in to_rgb(colour)] for colour in CLASS_COLOURS]
        self._palette = np.array(about.get('palette') or usual)
        self._gflops = {}  # by depth and shape of the input

    def see(self, image: np.ndarray, skips: Sequence[Skip], rounds: int = 1) -> list[Sight]:
        """Looks at an image of shape (H, W, 3), BGR, at some depths, of which the last stays set.

        Args:
            rounds: How often the depths run in turn. The latencies are medians of these runs, to which the
                first run at a depth on a size of image does not count.
        """
        data = self.model.data_preprocessor(pseudo_collate([self._packed(image)]), False)
        runs = [[self._run(data, skip) for skip in skips] for _ in range(rounds)]
        unit = flops_unit([sight.gflops for sight in runs[0]])
        return [
            sights[0]._replace(latency_ms=median(sight.latency_ms for sight in sights), unit=unit)
            for sights in zip(*runs, strict=True)
        ]

    def _run(self, data: dict, skip: Skip) -> Sight:
        self.depth.set_skip(skip)
        cost = self.depth.skip, tuple(data['inputs'].shape)
        first = cost not in self._gflops
        if first:
            self._gflops[cost] = complexity(self.model, data['inputs'])['gflops']
        for _ in range(1 + first):
            own = copy.deepcopy(data['data_samples'])  # for the model writes into them
            with torch.no_grad(), timed(data['inputs'].device) as took:
                (sample,) = self.model(data['inputs'], own, mode='predict')
        gflops = self._gflops[cost]
        return Sight(cost[0], took(), gflops, flops_unit([gflops]), sample.to('cpu'))

    def shape(self, image: np.ndarray) -> tuple[int, int, int]:
        """Channels, height and width that the test pipeline gives an image of shape (H, W, 3)."""
        return tuple(self._packed(image)['inputs'].shape)

    def _packed(self, image: np.ndarray) -> dict:
        about = dict(img_id=0, img_path='', img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return self._pipeline({'img': image, **about})

    def scores(self, sample: BaseDataElement, most: int = 5) -> dict[str, float]:
        """The likeliest classes of a classifier with their probabilities, the likeliest first."""
        values, labels = sample.pred_score.topk(min(most, len(sample.pred_score)))
        return {
            self._name(label): value for label, value in zip(labels.tolist(), values.tolist(), strict=True)
        }

    def summary(self, sample: BaseDataElement) -> str:
        """What was found, in a few words."""
        if self.classifier:
            return ', '.join(f'{name}: {value:.1%}' for name, value in self.scores(sample, 2).items())
        if 'pred_sem_seg' in sample:
            labels, pixels = sample.pred_sem_seg.data.unique(return_counts=True)
            found = sorted(zip(pixels.tolist(), labels.tolist(), strict=True), reverse=True)
            shares = [(self._name(label), n / sum(pixels.tolist())) for n, label in found]
            return ', '.join(f'{name} {share:.0%}' for name, share in shares if share >= 0.005)
        labels = Counter(self._found(sample).labels.tolist()).most_common()
        names = ', '.join(f'{count} {self._name(label)}' for label, count in labels)
        return f'found: {names}' if names else 'nothing found'

    def compare(self, image: np.ndarray, skips: Sequence[Skip], rounds: int = 1) -> np.ndarray:
        """A picture, RGB, of what is found in an image at several depths, at most four in a row."""
        panels = [self.panel(image, sight) for sight in self.see(image, skips, rounds)]
        gap = np.full_like(panels[0][:, :8], 255)
        columns = min(4, len(panels))
        panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
        rows = [
            np.hstack([part for panel in panels[i : i + columns] for part in (gap, panel)][1:])
            for i in range(0, len(panels), columns)
        ]
        return np.vstack(rows)

    @contextmanager
    def filming(
        self, path: str | Path, frames: Iterator[np.ndarray], fps: float, rows: list[dict], deadline_ms: float
    ) -> Iterator[Callable[[dict, BaseDataElement], None]]:
        """Writes a video of a stream, see `writing_video`.

        Args:
            frames: The images of the stream, of shape (H, W, 3), BGR, before they are resized for it.
            rows: Of a table with the GFLOPs of each depth.

        Yields:
            What `stream.run` takes as `watch`.
        """
        gflops = {row['skip']: row['gflops'] for row in rows}
        unit = flops_unit(gflops.values())
        with writing_video(path, fps) as write:

            def watch(record: dict, sample: BaseDataElement) -> None:
                skip, latency = record['skip'], record['latency_ms']
                remark = f'over {deadline_ms:.3g} ms' if latency > deadline_ms else ''
                sight = Sight(skip, latency, gflops[skip], unit, sample.to('cpu'), remark)
                write(self.panel(next(frames), sight))

            yield watch

    def panel(self, image: np.ndarray, sight: Sight) -> np.ndarray:
        """The image, RGB, with what was found in it, and a head that says the depth and what it cost."""
        picture = self.drawn(image, sight.sample)
        size = _font_size(picture) * 1.2
        size = min(size, picture.shape[1] / (0.52 * len(sight.cost)))  # all of it is to be read
        head = np.full((2 * round(1.7 * size), picture.shape[1], 3), 255, np.uint8)
        lines = (
            sight.cost,
            textwrap.shorten(self.summary(sight.sample), int(head.shape[1] / size / 0.6), placeholder=' ...'),
        )
        drawing = Visualizer(image=head)
        for text, y in zip(lines, (0.1, 1.5), strict=True):
            place = np.array([0.3 * size, y * size])
            drawing.draw_texts(text, place, font_sizes=0.72 * size, colors='black')
        return np.vstack([drawing.get_image(), picture])

    def drawn(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """The image, RGB, with a detector's boxes and masks, of a size at which labels can be read.

        Height and width are even, as videos need it. The sample may be of the image at another size.
        """
        longer = max(image.shape[:2])
        times = np.clip(longer, LEAST, MOST) / longer
        height, width = (2 * max(1, round(times * side / 2)) for side in image.shape[:2])
        way = 'nearest' if times > 2 else 'bilinear' if times > 1 else 'area'
        picture = np.ascontiguousarray(mmcv.imresize(image, (width, height), interpolation=way)[..., ::-1])
        if 'pred_sem_seg' in sample:
            return self._painted(picture, sample.pred_sem_seg.data[0].numpy().astype(np.uint8))
        found = () if self.classifier else self._found(sample)
        if not len(found):
            return picture
        colours = [CLASS_COLOURS[label % len(CLASS_COLOURS)] for label in found.labels.tolist()]
        seen_height, seen_width = sample.get('ori_shape', image.shape[:2])
        boxes = found.bboxes.numpy() * np.tile([width / seen_width, height / seen_height], 2)
        boxes = boxes.clip(0, [width, height, width, height])
        texts = [
            f'{self._name(label)} {score:.0%}'
            for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        ]
        size = _font_size(picture)
        places = [(x, y - 1.3 * size if y > 1.4 * size else y) for x, y, *_ in boxes.tolist()]
        if 'masks' in found:
            for mask, colour in zip(np.asarray(found.masks, np.uint8), colours, strict=True):
                _tint(picture, mmcv.imresize(mask, (width, height), interpolation='nearest'), colour)
        drawing = Visualizer(image=picture)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of boxes that end at the edge of the image
            drawing.draw_bboxes(boxes, edge_colors=colours, line_widths=max(2, size / 8), alpha=1)
            drawing.draw_texts(
                texts,
                np.array(places),
                font_sizes=[int(0.72 * size)] * len(texts),
                colors='white',
                bboxes=[dict(facecolor='black', alpha=0.7, pad=1, edgecolor='none')] * len(texts),
            )
        return drawing.get_image()

    def _painted(self, picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The picture in the colours of a segmentor's classes, with a name where each has most room."""
        labels = mmcv.imresize(labels, picture.shape[1::-1], interpolation='nearest')
        painted = (picture * 0.5 + self._palette[labels % len(self._palette)] * 0.5).astype(np.uint8)
        names, places = [], []
        for label in np.unique(labels):
            inside = np.pad((labels == label).astype(np.uint8), 1)
            depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
            if depth.max() > 0.4 * _font_size(picture):  # room for a name
                names.append(self._name(label))
                places.append(np.unravel_index(depth.argmax(), depth.shape)[::-1])
        drawing, number = Visualizer(image=painted), len(names)
        box = dict(facecolor='black', alpha=0.7, pad=1, edgecolor='none')
        size = int(0.72 * _font_size(picture))
        drawing.draw_texts(
            names,
            np.array(places),
            font_sizes=[size] * number,
            colors='white',
            horizontal_alignments=['center'] * number,
            bboxes=[box] * number,
        )
        return drawing.get_image()

    def _found(self, sample: BaseDataElement) -> BaseDataElement:
        return sample.pred_instances[sample.pred_instances.scores > self.score_thr]

    def _name(self, label: int) -> str:
        names = self._classes
        return str(names[label]) if names and label < len(names) else f'class {label}'


def _tint(picture: np.ndarray, mask: np.ndarray, colour: str) -> None:
    inside = mask > 0
    picture[inside] = picture[inside] * 0.5 + np.multiply(to_rgb(colour), 127.5)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, (255, 255, 255), 1)


def _font_size(picture: np.ndarray) -> float:
    """In pixels; matplotlib's points are 0.72 of it at the visualizer's 100 dots an inch."""
    return max(14, picture.shape[1] / 40)

"""The columns of tables of sub-networks: what a depth costs, and how each figure is shown and measured."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """A cost: its heading and format in a printed table, and how `profile_subnets` measures it, if it does.

    `measure` gets a `profile.Depth`, and gives a number, or None where it cannot be measured.
    """

    heading: str
    spec: str
    measure: Callable | None = None


# What a row of a table holds beside `skip` and its metrics, in the order of the printed tables: a new column
# of a profile takes one line here, with what measures it. Every other number of a row is a metric.
COLUMNS = {
    'latency_p50_ms': Column('p50 ms', '#.4g', lambda depth: float(np.percentile(depth.times_ms, 50))),
    'latency_p95_ms': Column('p95 ms', '#.4g', lambda depth: float(np.percentile(depth.times_ms, 95))),
    'gflops': Column('GFLOPs', '#.3g', lambda depth: depth.complexity['gflops']),
    'params': Column('params in use (M)', '.2f', lambda depth: depth.complexity['params']),
    'stored': Column('in all (M)', '.2f'),
    'latency_ms': Column('latency (ms)', '#.3g'),
    'peak_memory_mib': Column('peak MiB', '.1f', lambda depth: depth.peak_memory_mib()),
    'energy_j': Column('J', '#.3g', lambda depth: depth.energy_j()),
}
# How metrics are called in tables and pictures. Of the twelve figures that COCO's evaluator gives a task,
# tables show those with a name here; files have all.
LABELS = {
    'accuracy/top1': 'top-1 (%)',
    'accuracy/top5': 'top-5 (%)',
    'coco/bbox_mAP': 'box AP',
    'coco/segm_mAP': 'mask AP',
}

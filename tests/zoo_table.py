"""Holds every folder of the zoos to the contract of zoo.py, and every setting of a backbone; for docs/zoo.md.

Without arguments, all of it. What is done is kept in work_dirs/zoo.json until the page is written, so that an
interrupted run goes on. With the names of folders, such as mmdet/atss, those alone, and no page.
"""

import zoo  # isort: skip  first, for torchvision

import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import packages_distributions, version

import torch
from conftest import ROOT
from zoo import LIBRARIES, Findings, check, check_backbone, folders, settings

from mmadn.errors import MissingPackageError
from mmadn.utils.report import markdown_table, replacing, write_json

PROGRESS = ROOT / 'work_dirs' / 'zoo.json'
PAGE = ROOT / 'docs' / 'zoo.md'
VERDICTS = ('holds', 'holds in part', 'fails', 'stock fails', 'not adaptive')


def main(names: Sequence[str]) -> int:
    """Returns the exit status: whether something fails."""
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    missing = [library for library in LIBRARIES if not zoo.configs(library)]
    if missing:
        raise MissingPackageError(f"{', '.join(missing)} cannot be imported: `pip install '.[hosts]'`")
    if names:
        return any([run(i, names, name).ours for i, name in enumerate(names)])
    start = time.process_time()
    done = json.loads(PROGRESS.read_text()) if PROGRESS.exists() else dict(folders={}, settings={}, seconds=0)

    def keep(part: str, name: str, found: dict) -> None:
        nonlocal start
        done[part][name] = found
        done['seconds'] += time.process_time() - start
        start = time.process_time()
        write_json(PROGRESS, done)

    everything = folders()
    for i, name in enumerate(everything):
        if name not in done['folders']:
            keep('folders', name, asdict(run(i, everything, name)))
    for library in LIBRARIES:
        print(f'{library}: the settings of its backbones', flush=True)
        for key, cfg in settings(library).items():
            if key not in done['settings']:
                keep('settings', key, asdict(check_backbone(cfg)))
    found = [Findings(**done['folders'][name]) for name in everything]
    alone = [Findings(**each) for each in done['settings'].values()]
    with replacing(PAGE) as path:
        path.write_text(page(found, alone, round(done['seconds'] / 60)))
    PROGRESS.unlink()
    print(f'{PAGE.relative_to(ROOT)} is written')
    return any(each.ours for each in found + alone)


def run(i: int, names: Sequence[str], name: str) -> Findings:
    start = time.process_time()
    found = check(name)
    seconds = time.process_time() - start
    print(f'{i + 1}/{len(names)} {name}: {found} ({seconds:.0f} s)', flush=True)
    return found


INTRODUCTION = """# The zoos of mmdet, mmsegmentation and mmrotate

A config whose backbone has residual stages becomes adaptive by one word, the `type` of its backbone:
`ResNet` becomes `mmadn.ADNResNet`, `mmpretrain.ConvNeXt` becomes `mmadn.mmpretrain.ADNConvNeXt`. Here is
what came of that in one config of every folder. `make zoo` writes this page, in {minutes} minutes of one
core when it was written last.

A config **holds** if, with random weights and small images, on a CPU:

- the adaptive model loads the stock state dict strictly, and at `FFFF` all its losses and predictions are
  those of the stock model, bit for bit;
- at `TTTT` no skipped block runs, and losses and predictions are finite and others than at `FFFF`;
- `SelfDistillationHook` makes a training step in which every parameter that has a gradient in the stock
  model has one, both copies of each norm included, and the same parameters are frozen.

Queries, proposals and samples are capped, and synchronised batch norms are ordinary ones. **Holds in part**
means that stock itself fails here in what is named, and the rest holds; **stock fails** that there was
nothing to compare.
"""


BACKBONES = """Residual backbones alone, with each setting that occurs in any config of the zoo, such as
dilation, plugins, deformable convolutions or frozen stages: at `FFFF` the features are those of stock, bit
for bit, and at `TTTT` they are others."""


def page(found: Sequence[Findings], alone: Sequence[Findings], minutes: int) -> str:
    """The page in Markdown: of the configs that stand for the folders, and of the backbones alone."""
    rows = [
        {
            'folder': each.folder,
            'config': each.config.removesuffix('.py'),
            'backbone': each.backbone,
            'result': each.verdict,
            'why not': each.why_not,
        }
        for each in found
    ]
    rest = [
        dict(
            config=f'{each.folder}/{each.config}',
            backbone=each.backbone,
            result=each.verdict,
            why=each.why_not,
        )
        for each in alone
        if each.verdict != 'holds'
    ]
    parts = [
        INTRODUCTION.format(minutes=minutes),
        markdown_table(summary(found)),
        BACKBONES,
        markdown_table(summary(alone)),
        markdown_table(rest),
        '## Every folder',
        markdown_table(rows),
    ]
    return '\n\n'.join(filter(None, parts)) + '\n'


def summary(found: Sequence[Findings]) -> list[dict]:
    """How often each result occurs in each library."""
    distributions, rows = packages_distributions(), []
    for library in LIBRARIES:
        counts = Counter(each.verdict for each in found if each.library == library)
        about = f'{library} {version(distributions[library][0])}'
        rows.append(
            dict(library=about, all=counts.total(), **{verdict: counts[verdict] for verdict in VERDICTS})
        )
    return rows


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

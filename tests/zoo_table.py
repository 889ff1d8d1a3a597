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
        if library not in done['settings']:
            keep('settings', library, run_settings(library))
    found = [Findings(**done['folders'][name]) for name in everything]
    with replacing(PAGE) as path:
        path.write_text(page(found, done['settings'], round(done['seconds'] / 60)))
    PROGRESS.unlink()
    print(f'{PAGE.relative_to(ROOT)} is written')
    failed = [each for each in found if each.ours]
    failed += [each for one in done['settings'].values() for each in one['rest'] if each['ours']]
    return bool(failed)


def run(i: int, names: Sequence[str], name: str) -> Findings:
    start = time.process_time()
    found = check(name)
    seconds = time.process_time() - start
    print(f'{i + 1}/{len(names)} {name}: {found} ({seconds:.0f} s)', flush=True)
    return found


def run_settings(library: str) -> dict:
    """How many different settings the residual backbones of a library's zoo have, and what does not hold."""
    found = [check_backbone(cfg) for cfg in settings(library).values()]
    rest = [each for each in found if each.verdict != 'holds']
    print(f'{library}: {len(found) - len(rest)} of {len(found)} settings of backbones hold', flush=True)
    for each in rest:
        print(f'  {each.folder}/{each.config}: {each}', flush=True)
    return dict(settings=len(found), rest=[asdict(each) for each in rest])


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


def page(found: Sequence[Findings], backbones: dict[str, dict], minutes: int) -> str:
    verdicts = ('holds', 'holds in part', 'fails', 'stock fails', 'not adaptive')
    versions = {name: version(packages_distributions()[name][0]) for name in LIBRARIES}
    summary, rows = [], []
    for library in LIBRARIES:
        of_library = [each for each in found if each.folder.startswith(f'{library}/')]
        counts = Counter(each.verdict for each in of_library)
        summary.append(
            {
                'library': f'{library} {versions[library]}',
                'folders': len(of_library),
                **{verdict: counts[verdict] for verdict in verdicts},
                'settings of backbones': backbones[library]['settings'],
                'of these hold': backbones[library]['settings'] - len(backbones[library]['rest']),
            }
        )
    for each in found:
        notes = '; '.join([*each.ours, *filter(None, [each.not_adaptive]), *each.stock])
        row = dict(folder=each.folder, config=each.config.removesuffix('.py'), backbone=each.backbone)
        rows.append({**row, 'result': each.verdict, 'why not': notes})
    rest = [
        dict(
            backbone=each['backbone'],
            config=f'{library}/{each["folder"]}/{each["config"]}',
            why=str(Findings(**each)),
        )
        for library in LIBRARIES
        for each in backbones[library]['rest']
    ]
    parts = [INTRODUCTION.format(minutes=minutes), markdown_table(summary)]
    if rest:
        parts += ['Settings of backbones that do not hold:', markdown_table(rest)]
    return '\n\n'.join([*parts, '## Every folder', markdown_table(rows)]) + '\n'


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

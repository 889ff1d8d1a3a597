"""One report for a device: the contests, the profile and the tests that belong on it, and a page of them."""

import importlib.util
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch

from mmadn.deploy.compiling import unsupported
from mmadn.errors import InputError
from mmadn.evaluation.profile import profile_table, remarks
from mmadn.utils.report import machine, markdown_table, replacing, writable, write_json

from .contests.providers import PROVIDERS
from .networks import CONFIGS, TINY
from .parts import Part
from .tables import ratio_table, title

ROOT = Path(__file__).resolve().parents[1]
FEW = ['--rounds', 2, '--shape', 3, 32, 32]


@dataclass(frozen=True)
class DevicePart(Part):
    """A part of the report.

    Args:
        results: Files in its folder that are there when it is done.
        lacks: Why it is left out on this device, if it is.
    """

    results: Sequence[str] = ()
    lacks: str | None = None


def device_name(device: str) -> str:
    """What the GPU or the processor calls itself."""
    return machine()['cpu'] if device == 'cpu' else torch.cuda.get_device_name(device)


def folder_name(device: str) -> str:
    """A folder for the device of this name."""
    return re.sub('[^a-z0-9]+', '_', device.lower()).strip('_')


def device_parts(device: str, arch: str, small: bool, out: str | Path) -> list[DevicePart]:
    """All parts of the report of a device, with those that are left out on it.

    Args:
        small: Whether to try the report out, with a tiny network, tiny images and two rounds.
        out: The folder in which each part gets its own.
    """
    arch, cuda = 'tiny' if small else arch, device != 'cpu'

    def contest(name: str, kind: str, *options: object, lacks: str | None = None) -> DevicePart:
        limits = [*FEW, '--warmup', 1, '--batch', 2] if small else ['--max-seconds', 30]
        command = ['tools/benchmark.py', kind, '--arch', arch, '--device', device, *options, *limits]
        results = [f'{kind}.json', f'{kind}.png']
        return DevicePart(name, [*command, '--out', f'{out}/{name}'], results=results, lacks=lacks)

    def profile(name: str, *options: object) -> DevicePart:
        narrow = [f'model.backbone.{key}={value}' for key, value in TINY.items()]
        tiny = [*FEW, '--max-seconds', 1, '--cfg-options', *narrow, 'model.head.in_channels=16']
        limits = tiny if small else ['--max-seconds', 60]
        command = ['tools/profile_subnets.py', CONFIGS[arch], '--device', device, *options, *limits]
        return DevicePart(name, [*command, '--out', f'{out}/{name}'], results=['profile.json', 'profile.png'])

    tests = ['-m', 'pytest', '-o', 'addopts=', '-qq', 'tests/test_device.py', '--device', device]
    parts = [
        DevicePart(
            'tests',
            [*tests, f'--junitxml={out}/tests/tests.xml'],
            results=['tests.json'],
            lacks=lacks_packages('pytest'),
        ),
        profile('profile'),
        *(contest(kind, kind) for kind in ('inference', 'depths', 'train', 'prefixes')),
    ]
    if cuda:  # a GPU as it is mostly used: filled by large batches, at half the precision
        filled = ['--dtype', 'float16', '--batch', 64]
        parts.append(profile('profile_float16', *filled))
        for kind in ('inference', 'depths', 'train'):
            parts.append(contest(f'{kind}_float16', kind, *filled, '--channels-last'))
    parts.append(contest('compiled', 'compiled', lacks=unsupported()))
    for provider in PROVIDERS if cuda else ['cpu']:
        # Of a device that is given twice the last one counts.
        options = ['--device', 'cpu'] * cuda if provider == 'cpu' else ['--provider', provider]
        for kind in ('onnx', 'int8'):
            parts.append(contest(f'{kind}_{provider}', kind, *options, lacks=lacks_provider(provider)))
    return parts


def lacks_packages(*names: str) -> str | None:
    """Which of these are not installed, as a reason to leave something out; None if all are."""
    missing = ' '.join(name for name in names if importlib.util.find_spec(name) is None)
    return f'not installed: pip install {missing}' if missing else None


def lacks_provider(name: str) -> str | None:
    """Why onnxruntime cannot compute with one of PROVIDERS here, or None if it can."""
    if lacks := lacks_packages('onnx', 'onnxscript', 'onnxruntime'):
        return lacks
    about = onnxruntime_version()
    if PROVIDERS[name] in about['providers']:
        return None
    has = ', '.join(about['providers'])
    return f'onnxruntime {about["onnxruntime"]} has {has} alone: pip install onnxruntime-gpu in its place'


def onnxruntime_version() -> dict:
    if lacks_packages('onnxruntime'):
        return {'onnxruntime': None, 'providers': []}
    import onnxruntime

    return {
        'onnxruntime': onnxruntime.__version__,
        'providers': onnxruntime.get_available_providers(),
    }


def choose(parts: Sequence[DevicePart], only: Sequence[str]) -> list[DevicePart]:
    """The parts of these names, or all; raises ValueError for a name that none has."""
    known = {part.name: part for part in parts}
    for name in only:
        if name not in known:
            raise InputError(f'part {name!r}: give one or more of {", ".join(known)}')
    return [known[name] for name in dict.fromkeys(only or known)]


def make(
    device: str,
    arch: str,
    small: bool,
    out: str | Path,
    only: Sequence[str] = (),
    minutes: float = 15,
    tell: Callable[[str], object] = print,
) -> bool:
    """Runs the parts of the report whose results are not there yet, and writes the page after each.

    Args:
        device, arch, small, out: See `device_parts`.
        only: The names of the parts to run, also if their results are there.
        minutes: After these no part is begun, and the one that runs is stopped. So is one that takes more
            than half of them.
        tell: Takes a line when a part begins and ends.

    Returns:
        Whether no part failed.

    Raises:
        ValueError: There is no such part, or the folder has the report of another device or network.
        OSError: It cannot be written into the folder.
    """
    out, end = Path(out), time.monotonic() + 60 * minutes
    parts = device_parts(device, arch, small, out)
    chosen = choose(parts, only)
    report = read(out, {'device': device_name(device), 'arch': arch, 'small': small})
    report['machine'] = machine(device) | onnxruntime_version()
    writable(out)
    states = []
    for part in chosen:
        there = all((out / part.name / name).exists() for name in part.results)
        if there and not only and report['parts'].get(part.name, {}).get('state') == 'done':
            tell(f'{part.name}: is there')
            continue
        record = attempt(part, out / part.name, min(30 * minutes, end - time.monotonic()), tell)
        states.append(record['state'])
        report['parts'][part.name] = record
        write_json(out / 'report.json', report)
        write_page(report, [part.name for part in parts], out)
    return 'failed' not in states


def read(out: Path, about: dict) -> dict:
    """What earlier runs of the same report have left, or a report without parts."""
    path = out / 'report.json'
    report = json.loads(path.read_text()) if path.exists() else {**about, 'parts': {}}
    for key, value in about.items():
        if report[key] != value:
            raise InputError(
                f'{out} has the report of {key}={report[key]!r}, and this is {key}={value!r}; give another '
                'folder (--out)'
            )
    return report


def attempt(part: DevicePart, folder: Path, limit: float, tell: Callable[[str], object]) -> dict:
    """Runs a part, or leaves it out.

    Args:
        limit: The seconds after which it is stopped; at 0 it is not begun.

    Returns:
        Its `state`, done, failed or left out; `why`, in a line, if it is not done; `seconds`; `command`.
    """
    start = time.monotonic()
    why = part.lacks or ('the time was over, and the next run goes on here' if limit <= 0 else None)
    if why:
        tell(f'{part.name}: left out, {why}')
        return {'state': 'left out', 'why': why, 'seconds': None, 'command': part.line}
    tell(f'{part.name}: begins')
    writable(folder)
    for name in part.results:
        (folder / name).unlink(missing_ok=True)
    # A file and not a pipe, which processes that outlive the part would keep open.
    with tempfile.TemporaryFile('w+', errors='replace') as log:
        try:
            status = part.run(cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=limit)
        except subprocess.TimeoutExpired:
            status, why = None, f'stopped after {limit:.0f} s'
        log.seek(0)
        text = log.read().replace(f'{ROOT}/', '')
    for xml in folder.glob('*.xml'):
        keep_outcomes(xml)
    seconds = round(time.monotonic() - start, 1)
    if status == 0:
        tell(f'{part.name}: done after {seconds:.0f} s')
        return {'state': 'done', 'why': None, 'seconds': seconds, 'command': part.line}
    why = why or error_line(text) or f'exit status {status}'
    tell('\n'.join([*text.splitlines()[-20:], f'{part.name}: failed after {seconds:.0f} s, {why}']))
    return {'state': 'failed', 'why': why, 'seconds': seconds, 'command': part.line}


def error_line(text: str) -> str:
    """The last line that names an error, or else the last one; empty without any."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r'error: |FAILED |ERROR |[\w.]*(Error|Exception)\b', line)]
    return (errors or lines or [''])[-1][:300]


def write_page(report: dict, names: Sequence[str], out: Path) -> None:
    """Writes README.md, with the tables and pictures of the parts of these names."""
    computer = report['machine']
    names_of = dict(torch='torch', cuda='CUDA', onnxruntime='onnxruntime', python='Python')
    versions = ', '.join(f'{text} {computer[key]}' for key, text in names_of.items() if computer[key])
    network = 'a tiny network, to try it out: the numbers mean nothing' if report['small'] else report['arch']
    records = {name: report['parts'][name] for name in names if name in report['parts']}
    rows = [
        {
            'part': name,
            'state': record['state'],
            'seconds': f'{record["seconds"]:.0f}' if record['seconds'] else '',
            'why': record['why'] or '',
        }
        for name, record in records.items()
    ]
    sections = [
        f'# {report["device"]}',
        f'What the depths cost on this device ({network}), as `tools/report_device.py` has measured it.',
        f'{computer["cpu"]}, cores: {computer["cores"]}; {versions}.',
        'A ratio is the median of ratios within a round, in which all contestants run in random order; the '
        'interval holds the true median 19 times out of 20.',
        markdown_table(rows),
    ]
    for name, record in records.items():
        if record['state'] != 'left out':
            files = sorted((out / name).iterdir())
            sections += [f'## {name}', f'```bash\n{record["command"]}\n```', *filter(None, map(shown, files))]
    with replacing(out / 'README.md') as path:
        path.write_text('\n\n'.join(sections) + '\n')


def shown(path: Path) -> str:
    """What the page shows of a file of results; empty if nothing."""
    if path.suffix == '.png':
        return f'![{path.parent.name}]({path.parent.name}/{path.name})'
    if path.suffix == '.json':
        result = json.loads(path.read_text())
        if 'tests' in result:
            return markdown_table(result['tests'])
        if 'subnets' in result:
            return '\n\n'.join([markdown_table(profile_table(result['subnets'])), *remarks(result)])
        rows = ratio_table(result)
        if result['settings']['arch'] == 'tiny':  # whose ratios have nothing to meet
            rows = [{key: row[key] for key in row if key not in ('target', 'met')} for row in rows]
        return f'{title(result)}.\n\n{markdown_table(rows)}'
    return ''


def keep_outcomes(xml: Path) -> None:
    """Makes JSON of what pytest wrote, without the name of the computer."""
    rows = [*map(outcome, ElementTree.parse(xml).iter('testcase'))]
    write_json(xml.with_suffix('.json'), {'tests': rows})
    xml.unlink()


def outcome(case: ElementTree.Element) -> dict:
    """A row for a test, out of what pytest wrote."""
    why = next((each for each in case if each.tag in ('skipped', 'failure', 'error')), None)
    return {
        'test': case.get('name').removeprefix('test_').replace('_', ' '),
        'outcome': 'passed' if why is None else why.tag,
        'why': '' if why is None else why.get('message', '').partition('\n')[0],
    }

"""The report for a device: which parts it has, what it does when they fail, and its page."""

import json
import subprocess
from pathlib import Path

import pytest
import scripts
import torch

from benchmarks import report
from benchmarks.report import device_parts, error_line, folder_name, make

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'tools/report_device.py'


@pytest.fixture
def parts(monkeypatch):
    """Runs parts in forks; a function set for a part's name takes its place. Notes what ran."""

    class Parts:
        ran, instead = [], {}

    def run(part, timeout, **options):
        Parts.ran.append(part.name)
        if part.name in Parts.instead:
            return Parts.instead[part.name](**options)
        scripts.run(*part.words)
        return 0

    monkeypatch.setattr(report.Part, 'run', run)
    monkeypatch.chdir(ROOT)
    return Parts


def fails(stdout, **options):
    print(f'a line\nRuntimeError: out of memory in {ROOT}/mmadn\nmore', file=stdout)
    return 1


def hangs(**options):
    raise subprocess.TimeoutExpired('python', 5)


@pytest.mark.parametrize('device', ['cpu', 'cuda:1'])
@pytest.mark.parametrize('small', [False, True])
def test_every_part_is_a_command_of_this_project(device, small, parse, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for part in device_parts(device, 'resnet50', small, 'out'):
        if part.name != 'tests':
            assert f'--out out/{part.name}' in part.line
            parse(ROOT / part.words[0], part.words[1:])


def test_parts_of_a_gpu(monkeypatch):
    about = {'onnxruntime': '1.20', 'providers': ['CUDAExecutionProvider', 'CPUExecutionProvider']}
    monkeypatch.setattr(report, 'onnxruntime_version', lambda: about)
    parts = {part.name: part for part in device_parts('cuda', 'resnet50', False, 'out')}
    assert {'tests', 'profile', 'inference', 'train', 'depths', 'prefixes', 'compiled'} <= parts.keys()
    assert '--dtype float16 --batch 64 --channels-last' in parts['train_float16'].line
    assert parts['onnx_cuda'].lacks is None and parts['int8_cpu'].lacks is None
    assert 'pip install onnxruntime-gpu' in parts['int8_tensorrt'].lacks
    on_cpu = {part.name for part in device_parts('cpu', 'resnet50', False, 'out')}
    assert {'onnx_cpu', 'int8_cpu'} <= on_cpu and not any('cuda' in n or 'float16' in n for n in on_cpu)


def test_a_report_goes_on_where_it_failed(parts, tmp_path):
    told = []

    def again(**kwargs):
        return make('cpu', 'resnet50', True, tmp_path, tell=told.append, **kwargs)

    assert again(only=['inference', 'profile'])
    page = (tmp_path / 'README.md').read_text()
    assert 'ADN FF / stock' in page and '| TT |' in page and str(ROOT) not in page
    for picture in ('inference/inference.png', 'profile/profile.png'):
        assert f']({picture})' in page and (tmp_path / picture).exists()
    assert told == [
        'inference: begins',
        next(line for line in told if line.startswith('inference: done')),
        'profile: begins',
        told[-1],
    ]

    parts.ran.clear()
    everything = [part.name for part in device_parts('cpu', 'resnet50', True, tmp_path)]
    parts.instead = {name: fails for name in everything} | {'train': hangs}
    assert not again()
    assert parts.ran == [name for name in everything if name not in ('inference', 'profile')]
    records = json.loads((tmp_path / 'report.json').read_text())['parts']
    assert records['depths'] | {'seconds': 0} == {
        'state': 'failed',
        'why': 'RuntimeError: out of memory in mmadn',
        'seconds': 0,
        'command': records['depths']['command'],
    }
    assert 'stopped after' in records['train']['why'] and records['inference']['state'] == 'done'
    page = (tmp_path / 'README.md').read_text()
    assert '| depths | failed |' in page and 'ADN FF / stock' in page

    assert again(minutes=0)  # the rest is left for the next run, which is no failure
    records = json.loads((tmp_path / 'report.json').read_text())['parts']
    assert records['depths']['state'] == 'left out' and 'the next run' in records['depths']['why']
    parts.ran.clear()
    parts.instead['inference'] = fails
    assert not again(only=['inference'])
    assert parts.ran == ['inference'] and 'ADN FF / stock' not in (tmp_path / 'README.md').read_text()


def test_tests_that_fail_are_named(parts, tmp_path):
    def fail(stdout, **options):
        (tmp_path / 'tests' / 'tests.xml').write_text(
            '<testsuites><testsuite><testcase name="test_one_thing[cpu]"/><testcase name="test_another">'
            '<failure message="assert 1 == 2&#10;at length"/></testcase></testsuite></testsuites>'
        )
        print('FAILED tests/test_device.py::test_another - assert 1 == 2', file=stdout)
        return 1

    parts.instead = {'tests': fail}
    for _ in range(2):  # its file is there, and yet it runs again
        assert not make('cpu', 'resnet50', True, tmp_path, only=['tests'], tell=lambda line: None)
    page = (tmp_path / 'README.md').read_text()
    assert '| one thing[cpu] | passed |  |' in page and '| another | failure | assert 1 == 2 |' in page
    assert 'FAILED tests/test_device.py::test_another' in page and len(parts.ran) == 2


def test_another_network_needs_another_folder(parts, tmp_path):
    parts.instead = {'depths': fails}
    make('cpu', 'resnet50', True, tmp_path, only=['depths'], tell=lambda line: None)
    before = (tmp_path / 'report.json').read_text()
    with pytest.raises(ValueError, match="arch='resnet50', and this is arch='swin_t'.*--out"):
        make('cpu', 'swin_t', True, tmp_path)
    assert (tmp_path / 'report.json').read_text() == before and len(parts.ran) == 1


@pytest.mark.parametrize(
    'arguments, error',
    [
        (['--device', 'gpu'], "error: device 'gpu': give cpu, cuda or cuda:N"),
        (['--device', f'cuda:{torch.cuda.device_count()}'], 'CUDA devices here; give'),
        (
            ['--only', 'profile', 'speed'],
            "error: part 'speed': give one or more of tests, profile, inference",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arguments, error, tmp_path):
    done = scripts.run(TOOL, '--small', '--out', tmp_path / 'out', *arguments, code=1)
    assert error in done.stderr and done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_a_small_report_without_compiled_operators_and_detectors(tmp_path, monkeypatch):
    """As a user runs it: every part starts a Python in which these cannot be imported."""
    blocked = "import sys; sys.modules.update({'mmcv._ext': None, 'mmdet': None})\n"
    (tmp_path / 'sitecustomize.py').write_text(blocked)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
    done = scripts.run(TOOL, '--small', '--only', 'prefixes', '--out', tmp_path / 'out')
    assert 'prefixes: begins\nprefixes: done after' in done.stdout
    result = json.loads((tmp_path / 'out/prefixes/prefixes.json').read_text())
    assert result['settings']['arch'] == 'tiny' and result['settings']['rounds'] == 2
    assert '![prefixes](prefixes/prefixes.png)' in (tmp_path / 'out/README.md').read_text()


@pytest.mark.parametrize(
    'text, line',
    [
        ('', ''),
        ('error: no such file\n', 'error: no such file'),
        (
            'Traceback\n  x\ntorch.OutOfMemoryError: 2 GiB\n\nsome advice\n',
            'torch.OutOfMemoryError: 2 GiB',
        ),
        ('FAILED tests/a.py::test_b - assert 0\n', 'FAILED tests/a.py::test_b - assert 0'),
        ('Errors may follow\nlast words\n', 'last words'),
    ],
)
def test_error_line(text, line):
    assert error_line(text) == line


@pytest.mark.parametrize(
    'device, folder',
    [
        ('NVIDIA H100 80GB HBM3', 'nvidia_h100_80gb_hbm3'),
        ('Intel(R) Xeon(R) @ 2.20GHz', 'intel_r_xeon_r_2_20ghz'),
    ],
)
def test_folder_name(device, folder):
    assert folder_name(device) == folder

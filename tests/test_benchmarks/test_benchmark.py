import json
import math
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

import benchmarks as benchmark
from benchmarks import protocol
from benchmarks.contests.depths import depths
from benchmarks.contests.inference import inference
from benchmarks.contests.int8 import int8
from benchmarks.contests.onnx import onnx
from benchmarks.contests.prefixes import prefixes
from benchmarks.contests.providers import check_started
from benchmarks.contests.train import train
from benchmarks.networks import TINY, classifiers
from benchmarks.protocol import Gain, with_target
from benchmarks.tables import title
from mmadn.depth import SkipAwareNorm
from mmadn.evaluation.memory import peak_memory
from mmadn.evaluation.timing import summary
from mmadn.utils.report import machine, markdown_table, print_table, replacing, write_json

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'benchmark.py'
PNG = b'\x89PNG'


@pytest.fixture(autouse=True)
def _one_thread():  # several threads wait for each other on a busy machine
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(monkeypatch):
    network = dict(
        backbone=dict(type='mmadn.ADNResNet', depth=50, base_channels=8, stem_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', in_channels=256),
    )
    monkeypatch.setitem(benchmark.NETWORKS, 'tiny', network)
    return benchmark.Settings('tiny', rounds=2, warmup=1, batch=2, shape=(3, 32, 32))


def test_inference_compares_depths_and_switches(tiny, tmp_path):
    out = inference(tiny)
    names = ['stock', 'ADN FFFF', 'first FFFF', 'stock-base', 'ADN TTTT', 'first TTTT']
    assert list(out['medians_ms']) == names
    assert {name: r['target'] for name, r in out['ratios'].items()} == {
        'ADN FFFF / stock': 1.02,
        'ADN TTTT / stock-base': 1.02,
        'first FFFF / ADN FFFF': 1.05,
        'first TTTT / ADN TTTT': 1.05,
    }
    assert all(len(times) == 2 and min(times) > 0 for times in out['times_ms'].values())
    benchmark.save(out, tmp_path / 'new')
    assert json.loads((tmp_path / 'new' / 'inference.json').read_text()) == {
        **out,
        'settings': {**out['settings'], 'shape': [3, 32, 32]},
    }
    assert (tmp_path / 'new' / 'inference.png').read_bytes().startswith(PNG)
    assert len(list((tmp_path / 'new').iterdir())) == 2


def test_training_compares_time_and_memory(tiny, tmp_path, capsys):
    out = train(tiny)
    assert list(out['medians_ms']) == ['stock', 'stock-base', 'self-distilled']
    assert out['ratios']['self-distilled / (stock + stock-base)']['target'] == 1.03
    memory = out['memory_mib']
    ratio = out['ratios']['memory, self-distilled / stock']
    assert ratio['median'] == memory['self-distilled'] / memory['stock']
    assert memory['stock-base'] < memory['stock']
    benchmark.save(out, tmp_path)
    assert (tmp_path / 'train.png').read_bytes().startswith(PNG)
    benchmark.show(out)
    assert 'stock-base' in capsys.readouterr().out


def test_prefixes_against_separate_runs(tiny, tmp_path):
    out = prefixes(tiny)
    assert list(out['ratios']) == ['shared prefixes / one run a depth']
    benchmark.save(out, tmp_path)
    assert (tmp_path / 'prefixes.png').read_bytes().startswith(PNG)


def test_depths_are_judged_by_their_flops(tiny, tmp_path, monkeypatch):
    slow = dict(TTFF=9.0, TFFF=8.0, TTTT=5.0)  # TTFF has fewer FLOPs than all that are faster but TTTT's

    def measure(contestants, settings):
        assert [c.name for c in contestants] == [
            a + b + c + d for a in 'FT' for b in 'FT' for c in 'FT' for d in 'FT'
        ]
        return {c.name: [slow.get(c.name, 6.0)] for c in contestants}

    monkeypatch.setattr(protocol, 'measure', measure)
    out = depths(tiny)
    ends, worst = out['ratios'].items()
    assert ends[0] == 'TTTT / FFFF' and ends[1]['median'] == pytest.approx(5 / 6)
    assert ends[1]['target'] == pytest.approx(1.15 * out['gflops']['TTTT'] / out['gflops']['FFFF'])
    of, to = worst[0].split(' / ')
    assert of == 'TTFF' and out['gflops'][of] < out['gflops'][to] and worst[1]['median'] == 1.5
    assert not worst[1]['met']
    benchmark.save(out, tmp_path)
    assert (tmp_path / 'depths.png').read_bytes().startswith(PNG)


def test_gain_compares_speed_ups():
    times = dict(a=[8.0, 6.0], fast_a=[4.0, 2.0], b=[4.0, 3.0], fast_b=[1.0, 2.0])
    gain = Gain(('a', 'fast_a'), ('b', 'fast_b'), 0.92)
    assert list(gain.rounds(times)) == [0.5, 2] and gain.name == 'speed-up of fast_a / the speed-up of fast_b'
    assert with_target([0.95], 0.92, at_least=True)['met']
    assert not with_target([0.91], 0.92, at_least=True)['met']


def test_every_contest_has_its_subcommand(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', '--help'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name='__main__')
    text = capsys.readouterr().out
    assert {'compiled', 'depths', 'inference', 'prefixes', 'train'} <= set(benchmark.CONTESTS)
    assert all(f'    {name} ' in text for name in benchmark.CONTESTS)


def test_contestants_compute_the_same(tiny):
    nets = classifiers('tiny', share=True)
    for net in nets.values():
        net.eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        full, short = nets['full'](x), nets['short'](x)
        assert full.isfinite().all() and not torch.equal(full, short)
        assert torch.equal(nets['adn'](x), full)
        nets['adn'].backbone.set_skip('base')
        assert torch.equal(nets['adn'](x), short)


def test_contestants_share_weights_but_not_second_norms(tiny):
    nets = classifiers('tiny', share=True)
    full, short, adn = ({p.data_ptr() for p in nets[role].parameters()} for role in ('full', 'short', 'adn'))
    norms = [m for m in nets['adn'].modules() if isinstance(m, SkipAwareNorm)]
    first, second = ({getattr(m, copy).weight.data_ptr() for m in norms} for copy in ('full', 'skip'))
    assert full < adn and short < adn and norms
    assert first <= full and not first & short and second <= short and not second & full


def test_contestants_of_a_training_share_nothing(tiny):
    nets = classifiers('tiny')
    addresses = [{p.data_ptr() for p in net.parameters()} for net in nets.values()]
    assert not (addresses[0] & addresses[1] or addresses[0] & addresses[2] or addresses[1] & addresses[2])


STOCK = {  # the backbones of the stock networks, whole and of the mandatory blocks alone
    'tiny': (
        dict(type='ResNet', **TINY),
        dict(type='mmadn.ShortResNet', blocks=(1, 1), **TINY),
    ),
    'resnet50': (
        dict(type='ResNet', depth=50),
        dict(type='mmadn.ShortResNet', depth=50, blocks=(2, 2, 3, 2)),
    ),
    'resnet101': (
        dict(type='ResNet', depth=101),
        dict(type='mmadn.ShortResNet', depth=101, blocks=(2, 2, 12, 2)),
    ),
    'mobilenet_v2': (
        dict(type='MobileNetV2'),
        dict(type='mmadn.ShortMobileNetV2', blocks=(1, 1, 2, 2, 2, 2, 1)),
    ),
    'vit_b_16': (
        dict(type='VisionTransformer', arch='base'),
        dict(
            type='VisionTransformer',
            arch=dict(embed_dims=768, num_layers=8, num_heads=12, feedforward_channels=3072),
        ),
    ),
    'swin_t': (
        dict(type='SwinTransformer', arch='tiny'),
        dict(type='SwinTransformer', arch=dict(embed_dims=96, depths=[1, 1, 3, 1], num_heads=[3, 6, 12, 24])),
    ),
    'convnext_t': (
        dict(type='ConvNeXt', arch='tiny'),
        dict(type='ConvNeXt', arch=dict(depths=[2, 2, 5, 2], channels=[96, 192, 384, 768])),
    ),
}


@pytest.mark.parametrize('arch', benchmark.NETWORKS)
def test_stock_contestants_are_the_stock_networks(arch):
    """By names and shapes of all tensors, as their configs build them, and without our classes in them."""
    nets = classifiers(arch, share=True)
    for role, backbone in zip(('full', 'short'), STOCK[arch], strict=True):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            expected = MODELS.build(backbone).state_dict()
        found = nets[role].backbone.state_dict()
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
        assert not [m for m in nets[role].modules() if 'mmadn' in type(m).__module__]


@pytest.mark.parametrize('arch', benchmark.NETWORKS)
def test_the_short_network_has_what_the_base_net_uses(arch):
    nets = classifiers(arch, share=True)
    short, adn = nets['short'], nets['adn']
    with adn.backbone.skipping('base'):
        idle = sum(p.numel() for p in adn.backbone.idle_parameters())
    used = sum(p.numel() for p in adn.parameters()) - idle
    assert sum(p.numel() for p in short.parameters()) == used


def test_first_forward_follows_one_at_the_other_depth(tiny, monkeypatch):
    seen = []

    def measure(contestants, settings):
        backbone = contestants[1].run.__closure__[0].cell_contents.backbone
        for c in contestants:
            if 'stock' not in c.name:
                c.prepare()
                before = backbone.skip
                c.run()
                seen.append((c.name, before, backbone.skip))
        return {c.name: [1.0] for c in contestants}

    monkeypatch.setattr(protocol, 'measure', measure)
    inference(tiny)
    assert seen == [
        ('ADN FFFF', 'FFFF', 'FFFF'),
        ('first FFFF', 'TTTT', 'FFFF'),
        ('ADN TTTT', 'TTTT', 'TTTT'),
        ('first TTTT', 'FFFF', 'TTTT'),
    ]


def test_measure_runs_everyone_once_a_round_in_changing_order():
    calls = []
    contestants = [
        benchmark.Contestant(n, lambda n=n: calls.append(n), lambda n=n: calls.append(f'-{n}')) for n in 'abc'
    ]
    times = benchmark.measure(contestants, benchmark.Settings(rounds=6, warmup=2))
    assert {name: len(values) for name, values in times.items()} == dict(a=6, b=6, c=6)
    assert calls[::2] == [f'-{name}' for name in calls[1::2]]
    rounds = [''.join(calls[i + 1 : i + 6 : 2]) for i in range(0, len(calls), 6)]
    assert len(rounds) == 8 and all(sorted(r) == list('abc') for r in rounds)
    assert len(set(rounds)) > 1


def test_ratios_are_taken_within_a_round():
    times = dict(a=[2.0, 20.0, 6.0], b=[1.0, 10.0, 2.0], c=[1.0, 10.0, 4.0])
    assert list(benchmark.Ratio('a', ('b',), 2).rounds(times)) == [2, 2, 3]
    ratio = benchmark.Ratio('a', ('b', 'c'), 1)
    assert ratio.name == 'a / (b + c)'
    assert list(ratio.rounds(times)) == [1, 1, 1]


def test_summary_of_known_numbers():
    out = summary(range(100, -1, -1))
    assert (out['median'], out['q1'], out['q3']) == (50, 25, 75)
    assert (out['low'], out['high']) == (39, 61)  # ranks 40 and 62 of 101: 50.5 -+ 9.8
    assert set(summary([7]).values()) == {7}


@pytest.mark.parametrize(
    'values, met', [([1.0, 1.02, 1.5], True), ([1.0, 1.03, 1.0, 1.5], True), ([1.03], False)]
)
def test_a_target_is_met_by_the_median(values, met):
    assert with_target(values, 1.02)['met'] is met


def test_peak_memory_of_known_allocations():
    floats = 1000

    def run():
        a = torch.zeros(floats)
        b = a + 1
        b.view(10, 100).mul_(2)  # neither a view nor an in-place operator adds anything
        del a
        return torch.stack([b, b])

    assert peak_memory(run) == 3 * floats * 4
    older = torch.zeros(floats)
    assert peak_memory(lambda: older.view(10, 100).t()) == 0


def test_peak_memory_sees_what_autograd_keeps():
    w = torch.ones(1000, requires_grad=True)

    def run():
        y = w
        for _ in range(5):
            y = y.exp()  # keeps its result
        del y

    assert peak_memory(run) == 5 * 4000


@pytest.mark.parametrize('shape, error', [((1, 64, 64), '3 channels'), ((3, 32, 32), 'larger batch')])
def test_settings_that_cannot_work_are_refused(shape, error):
    with pytest.raises(ValueError, match=error):
        train(benchmark.Settings(batch=1, shape=shape))


def test_replacing_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / 'a' / 'b.json'
    write_json(path, {'x': 1})
    with pytest.raises(KeyError), replacing(path) as temporary:
        assert temporary.suffix == '.json' and temporary.parent == path.parent
        temporary.write_text('half')
        raise KeyError
    assert json.loads(path.read_text()) == {'x': 1}
    with replacing(path) as temporary:
        temporary.write_text('whole')
    assert path.read_text() == 'whole' and os.listdir(path.parent) == ['b.json']


def test_tables(capsys):
    rows = [{'name': 'a|b [red]', 'AP': '38.10', 'n': 3}, {'name': 'c', 'AP': '-', 'n': 44}]
    assert markdown_table(rows) == (
        '| name | AP | n |\n| --- | ---: | ---: |\n| a\\|b [red] | 38.10 | 3 |\n| c | - | 44 |'
    )
    assert markdown_table([]) == ''
    print_table(rows, 'title [x]')
    text = capsys.readouterr().out
    assert 'title [x]' in text and '[red]' in text and '38.10' in text


def test_machine_is_ready_for_json():
    assert json.loads(json.dumps(machine()))['torch'] == torch.__version__


def test_tool_as_a_user_runs_it(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, *'inference --rounds 2 --warmup 1 --shape 3 32 32'.split()]
        + [*'--threads 1 --clock cpu --out'.split(), tmp_path / 'out'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert 'ADN FFFF / stock' in done.stdout and 'Traceback' not in done.stderr
    out = json.loads((tmp_path / 'out' / 'inference.json').read_text())
    assert out['settings']['clock'] == 'cpu' and out['machine']['threads'] == 1
    assert all(math.isfinite(r['median']) for r in out['ratios'].values())


@pytest.mark.parametrize(
    'arguments, error',
    [
        (['--device', f'cuda:{torch.cuda.device_count()}'], 'CUDA devices here'),
        (['--device', 'gpu'], 'give cpu, cuda or cuda:N'),
        (['--rounds', '0'], 'give a whole number from 1 on'),
        (['--arch', 'vgg'], 'resnet50'),
    ],
)
def test_tool_says_what_it_takes(arguments, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', 'train', *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert end.value.code == 2 and error in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('contest', [inference, depths, prefixes, train])
def test_contests_in_half_the_precision_with_channels_last(contest, tiny, monkeypatch, tmp_path):
    seen = []

    def spy(module, args):
        seen.append((torch.get_autocast_dtype('cpu'), torch.is_autocast_enabled('cpu')))
        assert args[0].is_contiguous(memory_format=torch.channels_last)

    def spied(*args, **kwargs):
        nets = classifiers(*args, **kwargs)
        for net in nets.values():
            net.backbone.register_forward_pre_hook(spy)
            weights = [p for p in net.parameters() if p.ndim == 4]
            assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
        return nets

    monkeypatch.setattr(sys.modules[contest.__module__], 'classifiers', spied)
    out = contest(replace(tiny, dtype='bfloat16', channels_last=True))
    assert (torch.bfloat16, True) in seen
    benchmark.save(out, tmp_path)
    assert 'bfloat16 autocast, channels last' in title(out)


@pytest.mark.parametrize(
    'contest, settings, error',
    [
        (
            'onnx',
            dict(dtype='bfloat16'),
            'onnx cannot use it; .* depths, inference, prefixes, train',
        ),
        ('compiled', dict(channels_last=True), 'channels_last=True: the contest compiled cannot use it'),
        (
            'train',
            dict(provider='cpu'),
            "provider='cpu': the contest train cannot use it",
        ),
        ('train', dict(dtype='float16'), "dtype='float16': .* give bfloat16"),
        ('onnx', dict(provider='cuda'), "provider='cuda' on device='cpu': give cpu"),
        ('int8', dict(device='cuda'), "provider='cuda': onnxruntime .* install onnxruntime-gpu"),
    ],
)
def test_contests_refuse_what_they_cannot_use(contest, settings, error, tiny, monkeypatch):
    if contest in ('onnx', 'int8'):
        onnxruntime = pytest.importorskip('onnxruntime')
        monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(ValueError, match=error):
        benchmark.CONTESTS[contest].run(replace(tiny, **settings))


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype='int4': give one of"):
        benchmark.Settings(dtype='int4')


def test_onnxruntime_without_its_provider_is_refused():
    session = SimpleNamespace(get_providers=lambda: ['CPUExecutionProvider'])
    check_started(session, 'CPUExecutionProvider')
    with pytest.raises(RuntimeError, match='CUDAExecutionProvider did not start'):
        check_started(session, 'CUDAExecutionProvider')


def test_seconds_end_the_rounds_after_the_first(tiny):
    settings = replace(tiny, rounds=50, max_seconds=0.0)
    out = protocol.compete('inference', settings, [benchmark.Contestant('a', lambda: None)], [])
    assert out['settings']['rounds'] == 1 and len(out['times_ms']['a']) == 1
    assert json.loads(json.dumps(out))['settings']['max_seconds'] == 0


@pytest.fixture
def exports(monkeypatch):
    """Exports that take no time: their files compute a mean, and those in eight bits are smaller."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from mmadn.deploy.onnx import export

    def write(model, path, shape, skip=None, adaptive=False, int8=None):
        number = [model.backbone.num_skippable_stages]
        flags = [onnx.helper.make_tensor_value_info('skip', onnx.TensorProto.BOOL, number)]
        tensors = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
            for name, sizes in (('images', [None, *shape]), ('logits', [None] * 4))
        ]
        mean = onnx.helper.make_node('GlobalAveragePool', ['images'], ['logits'])
        weight = onnx.numpy_helper.from_array(torch.zeros(100 if int8 else 1000).numpy(), 'weight')
        graph = onnx.helper.make_graph(
            [mean], 'net', tensors[:1] + flags * adaptive, tensors[1:], initializer=[weight]
        )
        opset = [onnx.helper.make_opsetid('', 18)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
        return [{'relative': 1e-6}]

    monkeypatch.setattr(export, 'export_onnx', create_autospec(export.export_onnx, side_effect=write))


def test_int8_compares_files_in_eight_bits_and_in_float(exports):
    out = int8(benchmark.Settings('tiny', rounds=2, warmup=1, batch=2, shape=(3, 32, 32)))
    assert {name: r['target'] for name, r in out['ratios'].items()} == {
        'adaptive FF int8 / adaptive FF float': 1 / 2.8,
        'adaptive FF int8 / fixed FF int8': 1.05,
        'adaptive TT int8 / adaptive TT float': 1 / 2.8,
        'adaptive TT int8 / fixed TT int8': 1.05,
        'size, adaptive int8 / adaptive float': 0.30,
    }
    assert out['bytes']['adaptive int8'] < out['bytes']['adaptive float']


def test_onnx_compares_a_file_of_all_depths_with_files_of_one(exports, tiny):
    out = onnx(tiny)
    deep, *_, shallow = depths = classifiers('tiny')['adn'].backbone.subnets()
    fixed = ['FFFF', 'TTTT', 'TFTF', 'FTFT']
    assert {*out['medians_ms']} == {*(f'adaptive {s}' for s in depths), *(f'fixed {s}' for s in fixed)}
    assert [*out['ratios']] == [
        *(f'adaptive {skip} / fixed {skip}' for skip in fixed),
        f'adaptive {shallow} / adaptive {deep}',
        f'size, adaptive / fixed {deep}',
    ]
    assert out['difference'] == 1e-6

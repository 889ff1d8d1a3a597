"""Streams: their images, loads and reports, and the demonstration tool. No test depends on how fast it is."""

import itertools
import json
import runpy
import sys
from contextlib import contextmanager

import cv2
import detectors
import mmcv
import numpy as np
import pytest
import toy
from conftest import ROOT

from benchmarks.loads import load_pattern
from mmadn.deploy import DepthController, simulate
from mmadn.deploy.images import read_images, resized
from mmadn.deploy.stream import (
    fixed_depths,
    picture,
    run,
    steady,
    stream_table,
    summarise,
    verdict,
    write_stream,
)
from mmadn.deploy.viewer import Viewer

CONFIG = 'configs/demo/resnet50_adn_digits.py'
SHAPE = (3, 32, 40)
ROWS = [
    dict(skip=skip, gflops=g, params=1.0, latency_p50_ms=ms, latency_p95_ms=1.05 * ms)
    for skip, g, ms in (('FFFF', 4.0, 40.0), ('TFFF', 3.5, 36.0), ('FFTF', 3.4, 37.0), ('TTTT', 2.6, 26.0))
]


def test_steady_state_begins_after_a_rise():
    assert steady([1, 1, 2, 2, 2, 2, 1, 1.05, 1.1]).tolist() == [True] * 2 + [False] * 3 + [True] * 4


def test_summary():
    def records(policy, latencies, skips):
        loads = (1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5)
        return [
            dict(frame=i, load=load, policy=policy, skip=skip, latency_ms=ms)
            for i, (load, ms, skip) in enumerate(zip(loads, latencies, skips, strict=True))
        ]

    mine = records('controller', [40, 40, 40, 40, 60, 39, 39, 39], ['FFFF'] * 5 + ['TTTT'] * 3)
    fixed = records('FFFF', [40] * 4 + [60] * 4, ['FFFF'] * 8) + records(
        'TTTT', [26] * 4 + [39] * 4, ['TTTT'] * 8
    )
    summary = summarise(mine + fixed, ROWS, 45)
    found = summary['policies']['controller']
    assert found['misses'] == 1 / 8 and found['steady_misses'] == 0 and found['p50_ms'] == 40
    assert found['gflops'] == pytest.approx((5 * 4.0 + 3 * 2.6) / 8) and found['depth'] == 2.5
    assert found['shares'] == {'FFFF': 5 / 8, 'TTTT': 3 / 8} and found['mean_ms'] == pytest.approx(42.125)
    assert summary['policies']['FFFF']['steady_misses'] == 1 / 5  # the last of the slower images
    assert summary['best_fixed'] == 'TTTT'
    rows = stream_table(summary)
    assert [r['depth'] for r in rows] == ['controller', 'TTTT (best)', 'FFFF']
    assert rows[0]['misses %'] == '12.5' and rows[0]['stages'] == '2.50'
    lines = verdict(summary, 45)
    assert lines[0] == 'Controller: FFFF 62%, TTTT 38%.' and 'OVER the deadline of 45 ms' in lines[1]
    assert (
        '12.5% misses, 0.0% in steady state' in lines[1]
        and 'TTTT. The controller runs 2.50 stages more' in lines[2]
    )
    assert 'Mean latency 42.12 ms, 2.875 ms off the target of 45 ms' in verdict(summary, 45, 'target')[1]
    assert summarise(mine + fixed, ROWS, 20)['best_fixed'] is None
    assert 'No fixed depth keeps' in verdict(summarise(mine + fixed, ROWS, 20), 20)[2]
    assert len(stream_table(summarise(mine, ROWS, 45))) == 1


def test_simulation_is_reproducible_and_shows_all_choices():
    load = load_pattern('steps', 200)
    records = simulate(ROWS, 50, load, seed=3)
    assert records == simulate(ROWS, 50, load, seed=3) != simulate(ROWS, 50, load, seed=4)
    policies = {r['policy'] for r in records}
    assert policies == {'controller', 'FFFF', 'TFFF', 'TTTT'}  # FFTF is slower and has fewer GFLOPs
    by_frame = {(r['frame'], r['policy']): r['latency_ms'] for r in records}
    for r in records:  # at one image, all are as much slower as each other
        assert r['latency_ms'] == by_frame[r['frame'], r['skip']]


def images():
    return itertools.repeat(np.zeros(SHAPE, dtype=np.uint8))


def test_run_gives_the_controller_what_it_asks_for():
    model = toy.build().eval()
    now, order = [0.0], []

    class Slower:  # stands for the machine: takes the time of the profile, slower by the load
        factor = 1.0

        def at(self, factor):
            self.factor = factor

        @contextmanager
        def image(self, device):
            yield
            skip = model.backbone.skip
            order.append(skip)
            now[0] += {r['skip']: r['latency_p50_ms'] for r in ROWS}[skip] * self.factor / 1000

    load, slower = load_pattern('steps', 40, high=1.5, period=20), Slower()
    controller = DepthController(ROWS, 45, clock=lambda: now[0])
    records = run(model, images(), controller, load, slower, ['FFFF', 'TTTT'], clock=lambda: now[0])
    assert [r['skip'] for r in records] == order and len(order) == 3 * 40 and slower.factor == 1
    mine = [r for r in records if r['policy'] == 'controller']
    expected = [r for r in simulate(ROWS, 45, load, jitter=0) if r['policy'] == 'controller']
    assert [r['skip'] for r in mine] == [r['skip'] for r in expected]
    assert [r['latency_ms'] for r in mine] == pytest.approx([r['latency_ms'] for r in expected])
    assert controller.frames == 40 and controller.missed == sum(r['latency_ms'] > 45 for r in mine) > 0
    turns = {tuple(r['policy'] for r in records[i : i + 3]) for i in range(0, 120, 3)}
    assert len(turns) > 2 and all(len(set(turn)) == 3 for turn in turns)


@pytest.fixture
def pictures(tmp_path):
    """Three images in a folder, and a video of them."""
    folder = tmp_path / 'images'
    folder.mkdir()
    video = cv2.VideoWriter(str(tmp_path / 'video.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for i in range(3):
        image = np.full((48, 64, 3), 80 * i, dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
        video.write(image)
    video.release()
    (folder / 'notes.txt').write_text('no image')
    return tmp_path


@pytest.mark.parametrize('source', [None, 'images', 'video.avi'])
def test_images(pictures, source):
    found = list(itertools.islice(read_images(source and pictures / source, SHAPE), 7))
    assert all(image.shape == SHAPE and image.dtype == np.uint8 for image in found)
    if source:  # from the start again after the last
        assert [round(image.mean() / 80) for image in found] == [0, 1, 2, 0, 1, 2, 0]
    else:
        assert len({image.tobytes() for image in found}) == 7


@pytest.mark.parametrize(
    'source, error, message',
    [
        ('none.mp4', OSError, 'no video, folder or camera number: none.mp4'),
        ('99', OSError, 'no camera 99'),
        ('empty', ValueError, 'has no images'),
        ('broken.mp4', ValueError, 'broken.mp4 is no video that OpenCV reads'),
    ],
)
def test_sources_are_refused_at_once(source, error, message, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        read_images(source, SHAPE)


def test_report(tmp_path):
    records = simulate(ROWS, 45, load_pattern('steps', 60, period=30))
    summary = summarise(records, ROWS, 45)
    write_stream(records, summary, ROWS, tmp_path / 'new', deadline_ms=45, title='a stream')
    data = json.loads((tmp_path / 'new' / 'stream.json').read_text())
    assert (
        data['frames'] == records
        and data['best_fixed'] == summary['best_fixed']
        and data['deadline_ms'] == 45
    )
    assert (tmp_path / 'new' / 'stream.png').read_bytes().startswith(b'\x89PNG')
    assert len(list((tmp_path / 'new').iterdir())) == 2
    spike = [dict(frame=0, load=1, policy='controller', skip='TTTT', latency_ms=900.0), *records]
    picture(spike, ROWS, 45, tmp_path / 'spike.png')
    assert (tmp_path / 'spike.png').exists()


def test_fixed_depths():
    controller = DepthController(ROWS, 50)
    assert fixed_depths(ROWS, controller, 'none') == []
    assert fixed_depths(ROWS, controller, 'ends') == ['FFFF', 'TTTT']
    assert fixed_depths(ROWS, controller) == ['FFFF', 'TTTT', 'TFFF']


@pytest.fixture
def tool(monkeypatch):
    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['stream_demo.py', *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        runpy.run_path(str(ROOT / 'tools' / 'stream_demo.py'), run_name='__main__')

    return main


def test_tool(tool, pictures, capfd):
    small = ['--shape', *SHAPE, '--profile-seconds', 0.01, '--frames', 12, '--threads', 1]
    steps = ['--load', 'steps', '--period', 6]
    tool(CONFIG, *small, '--source', pictures / 'video.avi', '--out', pictures / 'a', *steps)
    data = json.loads((pictures / 'a' / 'stream.json').read_text())
    mine = [r for r in data['frames'] if r['policy'] == 'controller']
    assert len(mine) == 12 and [r['load'] for r in mine] == [1, 1, 1, 1.5, 1.5, 1.5] * 2
    assert {'FFFF', 'TTTT', 'controller'} <= set(data['policies']) and data['deadline_ms'] > 0
    assert 'controller' in capfd.readouterr().out and (pictures / 'a' / 'stream.png').exists()
    (pictures / 'profile.json').write_text(json.dumps({'subnets': data['subnets']}))
    chosen = [
        '--mode',
        'target',
        '--deadline-ms',
        5,
        '--compare',
        'none',
        '--profile',
        pictures / 'profile.json',
    ]
    tool(CONFIG, *small, *chosen, '--out', pictures / 'b')
    data = json.loads((pictures / 'b' / 'stream.json').read_text())
    assert set(data['policies']) == {'controller'} and data['deadline_ms'] == 5
    assert 'off the target of 5 ms' in capfd.readouterr().out


def test_a_video_of_ones_own_is_streamed_once_without_a_load_and_drawn(tool, pictures, capfd):
    rows = [{name: value for name, value in row.items() if name != 'params'} for row in ROWS]
    (pictures / 'profile.json').write_text(json.dumps({'subnets': rows}))
    options = ['--profile', pictures / 'profile.json', '--threads', 1, '--video', '--deadline-ms', 0.001]
    tool(CONFIG, '--source', pictures / 'video.avi', '--out', pictures / 'a', *options)
    data = json.loads((pictures / 'a' / 'stream.json').read_text())
    mine = [r for r in data['frames'] if r['policy'] == 'controller']
    assert [r['load'] for r in mine] == [1, 1, 1] and data['shape'] == [3, 32, 32]  # as the config tests
    assert set(data['policies']) == {'controller', 'FFFF', 'TTTT'} and 'load' not in data['title']
    drawn = mmcv.VideoReader(str(pictures / 'a' / 'stream.mp4'))
    frames = list(drawn)
    assert len(frames) == 3 and drawn.fps == 10 and frames[0].shape == (384 + 58, 512, 3)
    assert [round(frame[100:].mean() / 80) for frame in frames] == [0, 1, 2]
    assert all((frame[:50] < 100).any() for frame in frames)  # depth and latency
    assert 'stream.{json,png,mp4}' in capfd.readouterr().out


def test_a_detector_draws_the_frames_as_they_were_before_they_were_resized(tmp_path):
    cfg = detectors.config('retinanet')
    model = detectors.build('retinanet').eval()
    viewer, frame = Viewer(model, cfg), np.full((90, 120, 3), 200, np.uint8)
    shape = viewer.shape(frame)
    assert shape[0] == 3 and shape[1] / shape[2] == 0.75
    controller, shown = DepthController(ROWS, 45), []
    viewer.panel = lambda image, sight: shown.append((image.shape, sight)) or np.zeros((64, 64, 3), np.uint8)
    with viewer.filming(tmp_path / 'a.mp4', iter([frame] * 2), 10, ROWS, 0.001) as watch:
        run(model, resized([frame] * 2, shape), controller, [1, 1], watch=watch)
    assert [shape for shape, _ in shown] == [frame.shape] * 2
    for _, sight in shown:
        assert sight.sample.ori_shape == shape[1:] and sight.remark == 'over 0.001 ms'
        assert sight.gflops == {r['skip']: r['gflops'] for r in ROWS}[sight.skip]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['configs/none.py'], 'configs/none.py'),
        ([CONFIG, 'none.pth'], 'none.pth'),
        ([CONFIG, '--source', 'none.mp4'], 'no video, folder or camera number: .*none.mp4'),
        ([CONFIG, '--frames', 0], 'frames=0'),
        ([CONFIG, '--profile', 'other.json'], 'the table is of another network'),
        ([CONFIG, '--out', 'file/folder'], 'cannot write into .*file/folder'),
        ([CONFIG, '--device', 'cuda:99'], 'torch sees'),
    ],
)
def test_tool_mistakes_get_one_line(tool, arguments, message, tmp_path):
    (tmp_path / 'file').write_text('a file')
    (tmp_path / 'other.json').write_text(json.dumps({'subnets': ROWS}))
    names = ('none.pth', 'none.mp4', 'other.json', 'file/folder')
    arguments = [tmp_path / a if a in names else a for a in arguments]
    if '--out' not in arguments:
        arguments += ['--out', tmp_path / 'out']
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        tool(*arguments, '--shape', *SHAPE, '--profile-seconds', 0.01)
    assert not list(tmp_path.rglob('stream.*'))


def test_tool_refuses_a_deadline_of_zero(tool, capfd):
    with pytest.raises(SystemExit):
        tool(CONFIG, '--deadline-ms', 0)
    assert '--deadline-ms 0.0: give a number above 0' in capfd.readouterr().err

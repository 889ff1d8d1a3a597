"""What the page shows, without a browser."""

import json
import runpy
import sys

import numpy as np
import pytest
import toy
from conftest import ROOT
from mmengine.config import Config

from mmadn.deploy import playground
from mmadn.deploy.viewer import Viewer

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
DATASET = dict(type='mmadn.ImageFolder', pipeline=PIPELINE, metainfo=dict(classes=list('abcde')))
CFG = Config(dict(default_scope='mmpretrain', model=toy.model_cfg(), test_dataloader=dict(dataset=DATASET)))


@pytest.fixture
def viewer():
    return Viewer(toy.build().eval(), CFG)


def test_all_depths_in_the_order_of_their_flops(viewer, monkeypatch):
    rows = [dict(skip=skip, gflops=gflops) for skip, gflops in (('FFFF', 4), ('TTTT', 1), ('FTTT', 2))]
    monkeypatch.setattr(playground, 'measure', lambda cfg, skips: rows if skips == 'all' else [])
    assert playground.front(viewer, CFG) == ['TTTT', 'FTTT', 'FFFF']


@pytest.mark.parametrize(
    'figures, expected',
    [
        (dict(FFFF=(4, 40, 80), FTTT=(3, 45, 81), TFFF=(2, 30, 79), TTTT=(1, 20, 75)), 'TTTT TFFF FFFF FTTT'),
        (dict(FFFF=(4, 40, 70), FTTT=(3, 20, 81), TTTT=(1, 30, 75)), 'TTTT FTTT FFFF'),  # with both ends
    ],
)
def test_the_front_of_a_profile(viewer, figures, expected, tmp_path):
    rows = [
        {'skip': skip, 'gflops': gflops, 'latency_p50_ms': ms, 'accuracy/top1': top1}
        for skip, (gflops, ms, top1) in figures.items()
    ]
    path = tmp_path / 'profile.json'
    path.write_text(json.dumps(dict(subnets=rows)))
    assert playground.front(viewer, CFG, path) == expected.split()
    path.write_text(json.dumps(dict(subnets=[{'skip': 'TT', 'gflops': 1.0}])))
    with pytest.raises(ValueError, match='of another network'):
        playground.front(viewer, CFG, path)


def test_what_is_shown_of_an_image_follows_the_depth(viewer):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert playground.look(viewer, None, 'TTTT') == [None] * 6
    latency, scores, cost, whole_latency, whole_scores, whole_cost = playground.look(viewer, image, 'TTTT')
    assert latency.startswith('### TTTT: ') and whole_latency.startswith('### FFFF: ')
    assert set(scores) == set('abcde') and scores != whole_scores
    assert cost.endswith('MFLOPs') and float(cost.split()[0]) < float(whole_cost.split()[0])
    assert playground.look(viewer, image, 'FFFF')[1] == whole_scores
    (sight,) = viewer.see(image[..., ::-1], ['FFFF'])  # BGR
    assert whole_scores == viewer.scores(sight.sample)


def test_the_page_is_served_here_alone(viewer):
    gradio = pytest.importorskip('gradio')
    from gradio_client import Client

    page = playground.page(viewer, ['TTTT', 'FFFF'], 'a network')
    address = playground.launch(page)
    try:
        assert (
            address.startswith('http://127.0.0.1:') and page.share_url is None and not page.analytics_enabled
        )
        assert isinstance(Client(address, verbose=False).view_api(return_format='dict'), dict)
        assert any(isinstance(block, gradio.Slider) and block.maximum == 1 for block in page.blocks.values())
    finally:
        page.close()


def test_a_missing_gradio_is_one_line(monkeypatch):
    monkeypatch.setattr(playground, 'gradio', None)
    monkeypatch.setattr(sys, 'argv', ['playground.py', 'config.py', 'weights.pth'])
    with pytest.raises(SystemExit, match=r'^error: the playground needs gradio: pip install'):
        runpy.run_path(str(ROOT / 'tools' / 'playground.py'), run_name='__main__')

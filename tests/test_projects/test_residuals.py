"""What residual blocks add: against computations by hand, over all families, and the tool."""

import json
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from backbones import CASES
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample

from mmadn import cli
from mmadn.checkpoint.files import build_model
from mmadn.depth import SkipAwareNorm
from projects.paper.residuals import labelled_images, measure_residuals
from projects.paper.residuals_report import block_table, plot, summary, summary_table

CONFIG = 'configs/demo/resnet50_adn_digits.py'
STOCK = 'configs/demo/resnet50_digits.py'
CHANNELS = dict(resnet50=128, resnet50vd=128, mobilenet_v2=1280, swin=64, vit=16, convnext=16)


def classifier(name, classes=5, **backbone):
    """A tiny classifier in eval mode whose norms all differ, also the two copies of one."""
    vit = name == 'vit'
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(num_classes=classes, mean=[127.5] * 3, std=[127.5] * 3),
        backbone={'type': CASES[name].adn, **CASES[name].args, **backbone},
        neck=None if name in ('vit', 'convnext') else dict(type='GlobalAveragePooling'),
        head=dict(
            type='VisionTransformerClsHead' if vit else 'LinearClsHead',
            num_classes=classes,
            in_channels=CHANNELS[name],
        ),
    )
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, SkipAwareNorm):
            for norm in (module.full, module.skip):
                torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
                torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    return model.eval()


def batch(size=32, n=4, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])


def preprocessed(model, data):
    inputs = model.data_preprocessor(dict(data), False)['inputs']
    return inputs.requires_grad_(), torch.cat([sample.gt_label for sample in data['data_samples']])


def by_hand(logits, labels, points):
    """Magnitude and alignment of `points`, h and F(h) by block, as they are defined."""
    loss = F.cross_entropy(logits, labels, reduction='sum')
    found = {}
    for name, (h, added) in points.items():
        (gradient,) = torch.autograd.grad(loss, h, retain_graph=True)
        h, added, gradient = (x.detach().flatten(1).double() for x in (h, added, gradient))
        ratios, cosines = added.norm(dim=1) / h.norm(dim=1), F.cosine_similarity(added, -gradient)
        found[name] = [x.item() for x in (ratios.mean(), ratios.std(), cosines.mean(), cosines.std())]
    return found


def measured(rows):
    names = ('magnitude', 'magnitude_std', 'alignment', 'alignment_std')
    return {row['block']: [row[name] for name in names] for row in rows}


def assert_same(rows, expected):
    found = measured(rows)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize('skip', ['FFFF', 'TTTT', 'FTFT'])
@pytest.mark.parametrize('name', ['resnet50', 'resnet50vd'])
def test_resnet_by_hand(name, skip):
    model, data = classifier(name), batch()
    (x, labels), net = preprocessed(model, data), model.backbone
    net.set_skip(skip)
    x, points = net.maxpool(net.relu(net.norm1(net.conv1(x)))), {}
    for flag, stage in zip(skip, net.res_layers, strict=True):
        blocks = list(getattr(net, stage))
        for i, block in enumerate(blocks):
            h = x if block.downsample is None else block.downsample(x)
            out = block.norm1(block.conv1(x)).relu()
            out = block.norm2(block.conv2(out)).relu()
            added = block.norm3(block.conv3(out))
            points[f'{stage}.{i}'] = h, added
            if flag == 'F' or i < (len(blocks) + 1) // 2:
                x = (h + added).relu()
    expected = by_hand(model.head.fc(x.mean((2, 3))), labels, points)
    assert_same(measure_residuals(model, [data], [skip]), expected)
    assert len(expected) == 16 and net.skip == skip


@pytest.mark.parametrize('skip', ['FFFF', 'TTTT'])
def test_vit_by_hand(skip):
    model, data = classifier('vit'), batch()
    (x, labels), net = preprocessed(model, data), model.backbone
    net.set_skip(skip)
    x = net.patch_embed(x)[0]
    x, points = torch.cat([net.cls_token.expand(len(x), -1, -1), x], 1) + net.pos_embed, {}
    for i, block in enumerate(net.layers):
        attended = block.attn(block.ln1(x))
        added = attended + block.ffn.layers(block.ln2(x + attended))
        points[f'layers.{i}'] = x, added
        if skip == 'FFFF' or i % 3 < 2:
            x = x + added
    expected = by_hand(model.head.layers.head(net.ln1(x)[:, 0]), labels, points)
    assert_same(measure_residuals(model, [data], [skip]), expected)


def blocks_of(name, model):
    """The names of all residual blocks, by what the stock classes say of themselves."""
    if name == 'mobilenet_v2':
        modules = model.backbone.named_modules()
        return [n for n, module in modules if getattr(module, 'use_res_connect', False)]
    lengths = enumerate(CASES[name].lengths)
    if name == 'vit':
        return [f'layers.{i}' for i in range(12)]
    place = {'swin': 'stages.{}.blocks.{}', 'convnext': 'stages.{}.{}'}.get(name, 'layer{}.{}')
    first = 1 if place.startswith('layer') else 0
    return [place.format(i + first, k) for i, n in lengths for k in range(n)]


@pytest.mark.parametrize('name', CASES)
def test_every_family(name):
    model, case = classifier(name), CASES[name]
    data = batch(case.image_size)
    inputs, _ = preprocessed(model, data)
    logits = []
    model.head.register_forward_hook(lambda module, args, output: logits.append(output.detach()))
    rows = measure_residuals(model, [data])
    names, (full, base) = blocks_of(name, model), ('F' * case.flags, 'T' * case.flags)
    assert [(row['skip'], row['block']) for row in rows] == [(s, n) for s in (full, base) for n in names]
    skippable = {
        n for n, module in model.backbone.named_modules() if type(module).__name__.startswith('Skippable')
    }
    flags = set()
    for row in rows:
        below = row['block'] in skippable
        assert row['sub_path'] == ('skippable' if below else 'mandatory')
        assert row['skipped'] == (below and row['skip'] == base) and row['images'] == 4
        assert row['magnitude'] > 1e-7 and abs(row['alignment']) <= 1 and row['magnitude_std'] >= 0
        flags.add(row['stage'])
    assert flags == set(range(1, case.flags + 1))
    seen, logits[:] = logits[:], []
    for skip, passed in zip((full, base), seen, strict=True):
        with model.backbone.skipping(skip), torch.no_grad():
            assert torch.equal(model(inputs), passed)  # what would be added is beside the network
    assert not torch.equal(*seen)


@pytest.mark.parametrize('mandatory, sizes', [((1, 1, 2, 1), (2, 3, 4, 2)), ((3, 4, 6, 3), (0, 0, 0, 0))])
def test_sub_paths_follow_the_argument_mandatory(mandatory, sizes):
    rows = measure_residuals(classifier('resnet50', mandatory=mandatory), [batch()], 'base')
    skipped = [row['stage'] for row in rows if row['skipped']]
    assert [skipped.count(stage) for stage in (1, 2, 3, 4)] == list(sizes) and len(rows) == 16


@pytest.mark.parametrize('block', ['layer1.0', 'layer2.1', 'layer3.5'])
def test_a_branch_of_twice_the_size_has_twice_the_magnitude(block):
    model = classifier('resnet50')
    before = measured(measure_residuals(model, [batch()], 'super'))
    norm = model.backbone.get_submodule(block).norm3
    with torch.no_grad():
        for parameter in (getattr(norm, 'full', norm)).parameters():
            parameter *= 2
    after = measured(measure_residuals(model, [batch()], 'super'))
    names = list(before)
    for name in names[: names.index(block)]:
        assert after[name][:2] == before[name][:2]
    assert after[block][0] == pytest.approx(2 * before[block][0], rel=1e-5)


@pytest.mark.parametrize('confidence', [1, 1e4])
@pytest.mark.parametrize('step', [1.0, 0.01, -2.0])
def test_a_step_down_the_gradient_is_aligned(step, confidence):
    """With two classes and a linear head -dL/dh points from the other class's weights to the label's.

    It does so as well where an image is classified with certainty, and its loss in float32 is 0.
    """
    model, data = classifier('vit', classes=2, final_norm=False), batch(classes=2)
    head = model.head.layers.head
    with torch.no_grad():
        head.weight *= confidence
    _, labels = preprocessed(model, data)
    added = torch.zeros(4, 17, 16)
    added[:, 0] = step / confidence * (head.weight[labels] - head.weight[1 - labels]).detach()
    model.backbone.layers[11].forward = lambda x: x + added
    row = measure_residuals(model, [data], 'super')[-1]
    assert row['alignment'] == pytest.approx(1 if step > 0 else -1, abs=1e-5)
    assert row['alignment_std'] == pytest.approx(0, abs=1e-5)


def test_images_do_not_depend_on_their_batch():
    model, data = classifier('resnet50'), batch(n=7)
    whole = measure_residuals(model, [data])
    parts = [{name: values[part] for name, values in data.items()} for part in (slice(5), slice(5, 7))]
    halves = measure_residuals(model, iter(parts))
    assert [row['images'] for row in halves] == [7] * 32
    for half in (slice(16), slice(16, 32)):  # of the rows, at either depth
        assert_same(halves[half], measured(whole[half]))


def test_what_is_undefined_does_not_enter():
    model = classifier('resnet50')
    norm = model.backbone.layer1[1].norm3.full
    torch.nn.init.zeros_(norm.weight)
    torch.nn.init.zeros_(norm.bias)
    row = measure_residuals(model, [batch()], 'super')[1]
    assert (row['magnitude'], row['alignment'], row['alignment_std']) == (0, None, None)
    assert measure_residuals(model, [batch(n=1)], 'super')[0]['magnitude_std'] == 0


@pytest.mark.parametrize('change', ['checkpointed', 'frozen', 'no_grad', 'training'])
def test_measures_a_network_in_any_state(change):
    stochastic = dict(drop_path_rate=0.9)
    reference = classifier('resnet50', **stochastic)
    model = classifier('resnet50', with_cp=change == 'checkpointed', **stochastic)
    model.load_state_dict(reference.state_dict())
    model.train(change == 'training').requires_grad_(change != 'frozen')
    with torch.set_grad_enabled(change != 'no_grad'):
        rows = measure_residuals(model, [batch()])
    assert rows == measure_residuals(reference, [batch()]) and len(rows) == 32


@pytest.mark.parametrize('fails', [False, True])
def test_everything_is_left_as_found(fails, monkeypatch):
    model = classifier('resnet50', with_cp=True, skip='TFTF').train()
    model.backbone.layer2.eval()
    model.head.fc.weight.grad = torch.ones_like(model.head.fc.weight)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    calls, forward = [], model.head.forward

    def fail(feats):
        calls.append(model.backbone.skip)
        if fails and len(calls) == 4:
            raise RuntimeError('in the second batch')
        return forward(feats)

    monkeypatch.setattr(model.head, 'forward', fail)
    batches = [batch(n=2), batch(n=2, seed=1)]
    if fails:
        with pytest.raises(RuntimeError, match='in the second batch'):
            measure_residuals(model, batches)
    else:
        measure_residuals(model, batches)
    assert calls == ['FFFF', 'TTTT'] * 2 and model.backbone.skip == 'TFTF'
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert model.training and model.backbone.layer1[0].with_cp
    assert not any(m.training for m in model.backbone.layer2.modules())
    assert all(m.training for m in model.backbone.layer3.modules())
    graded = [name for name, p in model.named_parameters() if p.grad is not None]
    assert graded == ['head.fc.weight'] and bool((model.head.fc.weight.grad == 1).all())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    'skips, names',
    [('base', ['TTTT']), (['TTFF', 'super', [False] * 4], ['TTFF', 'FFFF']), ('all', 16)],
)
def test_depths(skips, names):
    rows = measure_residuals(classifier('resnet50'), [batch(n=1)], skips)
    found = list(dict.fromkeys(row['skip'] for row in rows))
    assert (len(found) if names == 16 else found) == names and len(rows) == 16 * len(found)


def unlabelled(data):
    return {**data, 'data_samples': [DataSample() for _ in data['data_samples']]}


@pytest.mark.parametrize(
    'model, batches, skips, error, message',
    [
        (torch.nn.Identity, [], 'super', TypeError, 'Identity is no ImageClassifier'),
        (lambda: classifier('resnet50', type='ResNet'), [], 'super', TypeError, 'no adaptive depth'),
        (lambda: classifier('resnet50'), [], 'TTF', ValueError, "skip='TTF': give 4 letters"),
        (lambda: classifier('resnet50'), [], 'super', ValueError, 'at least one batch of images'),
        (lambda: classifier('resnet50'), [unlabelled(batch())], 'super', ValueError, 'labelled test data'),
    ],
)
def test_says_what_is_wrong(model, batches, skips, error, message):
    with pytest.raises(error, match=message):
        measure_residuals(model(), batches, skips)


def row(network, seed, skip, block, magnitude, alignment, sub_path='mandatory', skipped=False):
    about = dict(network=network, checkpoint=f'{network}{seed}', skip=skip, block=block, stage=1)
    values = dict(magnitude=magnitude, magnitude_std=0.1, alignment=alignment, alignment_std=0.1, images=9)
    return {**about, **values, 'sub_path': sub_path, 'skipped': skipped}


ROWS = [
    *(row('adaptive', s, 'F', 'a', 1.0 + s, 0.2) for s in (0, 1)),
    *(row('adaptive', s, 'F', 'b', 2.0 + s, 0.4) for s in (0, 1)),
    *(row('adaptive', s, 'F', 'c', 0.2, None, 'skippable') for s in (0, 1)),
    *(row('adaptive', s, 'T', 'c', 0.3 + 0.2 * s, -0.1, 'skippable', True) for s in (0, 1)),
    row('plain', 0, 'F', 'a', 0.5, 0.1),
    row('plain', 0, 'F', 'b', 0.5, 0.3),
    row('plain', 0, 'F', 'c', 0.4, 0.0, 'skippable'),
]


def test_tables_give_means_and_spread_over_the_seeds():
    table = block_table(ROWS, 'magnitude')
    assert [line['block'] for line in table] == ['a', 'b', 'c']
    assert table[0] == {
        'block': 'a',
        'sub-path': 'mandatory',
        'F': '1.500 ± 0.707',
        'T': '',
        'plain': '0.500',
    }
    assert table[2] == {
        'block': 'c',
        'sub-path': 'skippable',
        'F': '0.200',
        'T': '(0.400 ± 0.141)',
        'plain': '0.400',
    }
    assert [line['F'] for line in block_table(ROWS, 'alignment')] == ['0.200', '0.400', '']


def test_summary():
    lines = {(line['network'], line['sub_path']): line for line in summary(ROWS)}
    whole = lines['F', 'mandatory']
    assert whole['magnitude'] == 2.0 and whole['magnitude_std'] == pytest.approx(0.5**0.5)
    assert whole['over_plain'] == 4.0 and whole['alignment'] == pytest.approx(0.3) and whole['seeds'] == 2
    assert lines['F', 'skippable']['over_plain'] == 0.5 and lines['F', 'skippable']['alignment'] is None
    assert lines['T', 'skippable']['over_plain'] == pytest.approx(1.0)
    assert lines['plain', 'mandatory']['over_plain'] is None
    assert ('T', 'mandatory') not in lines
    texts = summary_table(ROWS)
    assert texts[0]['over plain'] == '4.000' and texts[-1]['over plain'] == texts[1]['cosine'] == ''
    alone = summary([r for r in ROWS if r['network'] == 'adaptive'])
    assert {line['over_plain'] for line in alone} == {None}


def test_picture_of_a_single_seed(tmp_path):
    plot([r for r in ROWS if r['checkpoint'] == 'adaptive0'], tmp_path / 'a.png')
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


@pytest.fixture
def cfg(digits):
    cfg = Config.fromfile(ROOT / CONFIG)
    settings = (option.split('=', 1) for option in digits.small[1:] if 'dataloader' in option)
    cli.merge_options(
        cfg, {name: value == 'True' for name, value in settings} | {'data_root': str(digits.root)}
    )
    cfg.test_dataloader.update(num_workers=0, batch_size=16)
    return cfg


@pytest.mark.parametrize('images, count', [(1, 1), (16, 16), (30, 30), (500, 80)])
def test_images_are_the_same_ones_of_all_classes(cfg, images, count):
    batches = labelled_images(cfg, images)

    def draw():
        found = list(batches())
        samples = [sample for each in found for sample in each['data_samples']]
        assert sum(len(each['inputs']) for each in found) == len(samples) == count
        return [(sample.img_path, int(sample.gt_label)) for sample in samples]

    drawn = draw()
    assert drawn == draw() and len(set(drawn)) == count
    assert count < 30 or len({label for _, label in drawn}) >= 8


def test_without_test_data():
    with pytest.raises(ValueError, match='no test_dataloader'):
        labelled_images(Config(dict(model=dict())), 8)


@pytest.fixture
def tool(monkeypatch, digits):
    def main(*arguments):
        command = ['residuals.py', *arguments, '--device', 'cpu', *digits.small]
        monkeypatch.setattr(sys, 'argv', list(map(str, command)))
        monkeypatch.chdir(ROOT)
        runpy.run_path(str(ROOT / 'tools/analysis/residuals.py'), run_name='__main__')

    return main


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Two seeds of the tiny adaptive network and one of the stock network, untrained."""
    folder, paths = tmp_path_factory.mktemp('checkpoints'), []
    for config, seed in ((CONFIG, 0), (CONFIG, 1), (STOCK, 2)):
        cfg = Config.fromfile(ROOT / config)
        cfg.model.backbone.update(base_channels=4, stem_channels=4)
        cfg.model.head.in_channels = 128
        torch.manual_seed(seed)
        paths.append(folder / f'{seed}.pth')
        torch.save(dict(state_dict=build_model(cfg).state_dict()), paths[-1])
    return paths


def test_tool(tool, checkpoints, tmp_path, capsys):
    *seeds, stock = checkpoints
    out = tmp_path / 'new'
    tool(CONFIG, *seeds, '--against', stock, '--images', 20, '--out', out)
    data = json.loads((out / 'residuals.json').read_text())
    counts = {}
    for each in data['residuals']:
        key = (each['network'], each['checkpoint'], each['skip'])
        counts[key] = counts.get(key, 0) + 1
        assert each['images'] == 20
    adaptive = {('adaptive', str(path), skip): 16 for path in seeds for skip in ('FFFF', 'TTTT')}
    assert counts == {**adaptive, ('plain', str(stock), 'FFFF'): 16}
    assert data['config'] == CONFIG and len(data['summary']) == 6
    text = (out / 'residuals.md').read_text()
    lines = [line for line in text.splitlines() if line.startswith('|')]
    assert [line.count('|') for line in lines] == [7] * 8 + [6] * 36  # of whole tables
    assert text.count('| layer3.5 | skippable |') == 2 and '± ' in text
    assert (out / 'residuals.png').read_bytes().startswith(b'\x89PNG')
    shown = capsys.readouterr().out
    assert '3/3 plain' in shown and 'over plain' in shown
    assert shown.rstrip().endswith(f'{out}/residuals.{{json,md,png}}')


def test_stock_weights_are_measured_as_the_stock_network(tool, checkpoints, tmp_path):
    stock, skips = checkpoints[2], ['--skips', 'super', 'TTFF']
    tool(CONFIG, stock, '--against', stock, *skips, '--images', 4, '--out', tmp_path)
    rows = json.loads((tmp_path / 'residuals.json').read_text())['residuals']
    assert [r['skip'] for r in rows] == ['FFFF'] * 16 + ['TTFF'] * 16 + ['FFFF'] * 16
    about = ('network', 'skip')
    measured = [{name: value for name, value in r.items() if name not in about} for r in rows]
    assert measured[:16] == measured[32:] != measured[16:32]
    assert {r['block'] for r in rows if r['skipped']} == {'layer1.2', 'layer2.2', 'layer2.3'}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['configs/none.py', 'a.pth'], 'configs/none.py'),
        ([STOCK, 'a.pth'], 'no adaptive depth'),
        ([CONFIG, 'none.pth'], 'none.pth'),
        ([CONFIG, 'other.pth'], 'other.pth is not a checkpoint of the model in this config'),
        ([CONFIG, 'a.pth', '--against', 'other.pth'], 'other.pth is not a checkpoint'),
        ([CONFIG, 'a.pth', '--skips', 'TTX'], "skip='TTX': give 4 letters"),
        ([CONFIG, 'a.pth', '--out', 'file/folder'], 'cannot write into .*file/folder'),
    ],
)
def test_tool_mistakes_get_one_line(tool, checkpoints, arguments, message, tmp_path):
    (tmp_path / 'file').write_text('a file')
    torch.save({'state_dict': {'backbone.conv1.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    paths = {name: tmp_path / name for name in ('other.pth', 'none.pth', 'file/folder')}
    paths['a.pth'] = checkpoints[0]
    arguments = [paths.get(argument, argument) for argument in arguments]
    if '--out' not in arguments:
        arguments += ['--out', tmp_path / 'out']
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as error:
        tool(*arguments, '--images', 2)
    assert '\n' not in str(error.value) and not list(tmp_path.rglob('residuals.*'))


def test_images_are_counted_from_one(tool, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool(CONFIG, 'a.pth', '--images', 0, '--out', tmp_path)
    assert '--images 0: give a whole number from 1 on' in capsys.readouterr().err

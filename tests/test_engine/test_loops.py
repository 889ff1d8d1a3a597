import pytest
import torch
import toy
from mmengine import load
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator

from mmadn.engine.loops import SubnetEvaluator


def test_validates_both_ends_in_one_pass_over_the_data(tmp_path):
    hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='TTTT/accuracy/top1'))
    runner = toy.runner(tmp_path, epochs=1, default_hooks=hooks)
    runner.train()
    assert runner.val_dataloader.dataset.loaded == 16
    scalars = runner.message_hub.log_scalars
    assert {'val/FFFF/accuracy/top1', 'val/TTTT/accuracy/top1'} <= set(scalars)
    assert list(tmp_path.glob('best_TTTT_accuracy_top1_epoch_1.pth'))
    assert runner.model.backbone.skip == 'FFFF'


@pytest.mark.parametrize(
    'skips, names',
    [
        (['TTFF', [True, True, True, True], 'base', 'super'], ['TTFF', 'TTTT', 'FFFF']),
        ('all', None),
        ('base', ['TTTT']),
    ],
    ids=['some', 'all', 'one'],
)
def test_each_metric_is_that_of_a_run_at_that_depth(skips, names, tmp_path):
    runner = toy.runner(tmp_path, test_cfg=dict(type='mmadn.SubnetTestLoop', skips=skips))
    model = runner.model
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    metrics = runner.test()
    names = names or model.backbone.subnets()
    assert list(metrics) == [f'{name}/accuracy/top1' for name in names]
    assert runner.test_dataloader.dataset.loaded == 16
    data = toy.batch(16)
    labels = torch.cat([s.gt_label for s in data['data_samples']])
    seen = set()
    for name in names:
        model.backbone.set_skip(name)
        predicted = torch.stack([s.pred_label for s in model.test_step(data)]).flatten()
        accuracy = 100 * (predicted == labels).float().mean().item()
        assert metrics[f'{name}/accuracy/top1'] == pytest.approx(accuracy)
        seen.add(tuple(predicted.tolist()))
    assert len(seen) > 1 or len(names) == 1  # the depths do differ


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_depths_of_a_batch_share_what_they_have_in_common(mode, tmp_path):
    cfg = dict(type=f'mmadn.Subnet{mode.title()}Loop', skips='all')
    runner = toy.runner(tmp_path, **{f'{mode}_cfg': cfg})
    backbone, runs = runner.model.backbone, []
    for stage in (backbone.layer1, backbone.layer4):
        forward = stage.forward
        stage.forward = lambda x, forward=forward, stage=stage: runs.append(stage) or forward(x)
    getattr(runner, mode)()
    assert (runs.count(backbone.layer1), runs.count(backbone.layer4)) == (4 * 2, 4 * 16)


def test_hooks_see_the_depth_that_was_given_last(tmp_path):
    from mmengine.hooks import Hook

    class Keep(Hook):
        def after_test_iter(self, runner, outputs=None, data_batch=None, **kwargs):
            self.scores = [sample.pred_score for sample in outputs]
            self.data = data_batch

    keep = Keep()
    test_cfg = dict(type='mmadn.SubnetTestLoop', skips=['TTTT', 'TTFF', 'FFTT'])
    runner = toy.runner(tmp_path, hooks=[keep], test_cfg=test_cfg)
    for p in runner.model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    runner.test()
    with torch.no_grad(), runner.model.backbone.skipping('FFTT'):
        scores = [sample.pred_score for sample in runner.model.test_step(keep.data)]
    assert all(map(torch.equal, keep.scores, scores))


def test_hooks_see_each_batch_once(tmp_path):
    from mmengine.hooks import Hook

    class Count(Hook):
        before = after = 0

        def before_test_iter(self, runner, **kwargs):
            self.before += 1

        def after_test_iter(self, runner, outputs=None, **kwargs):
            self.after += 1
            assert len(outputs) == 4

    count = Count()
    toy.runner(tmp_path, hooks=[count]).test()
    assert (count.before, count.after) == (4, 4)


def test_bad_settings_stop_before_the_data(tmp_path):
    runner = toy.runner(tmp_path, test_cfg=dict(type='mmadn.SubnetTestLoop', skips=['TT']))
    with pytest.raises(ValueError, match="skip='TT': give 4 letters"):
        runner.test()
    stock = toy.model_cfg(backbone=dict(type='mmpretrain.ResNet'))
    with pytest.raises(TypeError, match='no adaptive depth'):
        toy.runner(tmp_path, model=stock, experiment_name='stock').test()


def test_a_tracker_is_tested_at_one_depth_at_a_time(tmp_path):
    """What it remembers of a frame at one depth would be looked up at the next one."""
    runner = toy.runner(tmp_path)
    runner.model.tracker = object()
    with pytest.raises(ValueError, match='remembers the frames before, so test it at one depth at a time'):
        runner.test()
    runner = toy.runner(
        tmp_path, test_cfg=dict(type='mmadn.SubnetTestLoop', skips='TTTT'), experiment_name='one'
    )
    runner.model.tracker = object()
    assert list(runner.test()) == ['TTTT/accuracy/top1']


def test_the_best_checkpoint_is_of_a_depth_that_is_validated(tmp_path):
    hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='TTT/accuracy/top1'))
    runner = toy.runner(tmp_path, default_hooks=hooks)
    with pytest.raises(ValueError, match="save_best='TTT/accuracy/top1': .* FFFF, TTTT; give .*'TTTT/acc"):
        runner.val_loop  # noqa: B018


def test_a_metric_added_as_the_stock_tools_do_writes_a_file_for_each_depth(tmp_path):
    """OpenMMLab's `tools/test.py --out` appends DumpResults to `runner.test_evaluator.metrics`."""
    test_cfg = dict(type='mmadn.SubnetTestLoop', skips=['FFFF', 'TTFF', 'TTTT'])
    runner = toy.runner(tmp_path, test_cfg=test_cfg)
    for p in runner.model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    runner.test_evaluator.metrics.append(DumpResults(out_file_path=f'{tmp_path}/results.pkl'))
    metrics = runner.test()
    assert sorted(path.name for path in tmp_path.glob('*.pkl')) == [
        f'results.{skip}.pkl' for skip in ('FFFF', 'TTFF', 'TTTT')
    ]
    data = toy.batch(16)
    for skip in ('FFFF', 'TTFF', 'TTTT'):
        with torch.no_grad(), runner.model.backbone.skipping(skip):
            scores = [sample.pred_score for sample in runner.model.test_step(data)]
        dumped = [sample['pred_score'] for sample in load(tmp_path / f'results.{skip}.pkl')]
        assert len(dumped) == 16 and all(map(torch.allclose, dumped, scores))
    # Once more, and with a further metric that comes only now.
    runner.test_evaluator.metrics.append(DumpResults(out_file_path=f'{tmp_path}/again.pickle'))
    assert runner.test() == metrics
    assert len(list(tmp_path.glob('again.*.pickle'))) == 3


def test_the_files_of_one_depth_keep_their_name(tmp_path):
    runner = toy.runner(tmp_path, test_cfg=dict(type='mmadn.SubnetTestLoop', skips='base'))
    runner.test_evaluator.metrics.append(DumpResults(out_file_path=f'{tmp_path}/results.pkl'))
    runner.test()
    assert [path.name for path in tmp_path.glob('*.pkl')] == ['results.pkl']


class Annotated(BaseMetric):
    """A metric with parsed annotations, and a prefix of its files, as mmdet's for COCO has them."""

    def __init__(self, annotations, outfile_prefix):
        super().__init__(prefix='coco')
        self._coco_api, self.outfile_prefix, self.seen = annotations, outfile_prefix, {}

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {'number': len(results)}


class Annotations:
    anns = {1: {'bbox': [0, 0, 1, 1]}}


@pytest.mark.parametrize('folder', [False, True])
def test_depths_share_annotations_and_nothing_else(folder, tmp_path):
    prefix = tmp_path / 'v1.5'
    if folder:  # as Cityscapes' metric makes it
        prefix.mkdir()
    annotations = Annotations()
    evaluator = SubnetEvaluator(Evaluator([Annotated(annotations, str(prefix))]), ['FF', 'TT'])
    full, base = (each.metrics[0] for each in evaluator.evaluators.values())
    assert full._coco_api is base._coco_api is annotations
    assert full.results is not base.results and full.seen is not base.seen
    assert (full.outfile_prefix, base.outfile_prefix) == (f'{prefix}.FF', f'{prefix}.TT')
    assert (tmp_path / 'v1.5.TT').is_dir() == folder
    evaluator.evaluators['TT'].process([{}], None)
    evaluator.evaluators['FF'].process([{}, {}], None)
    assert evaluator.evaluate(2) == {'FF/coco/number': 2, 'TT/coco/number': 1}

# A narrow ResNet50-ADN on drawn letters, a task on which depth matters; `make evidence` draws the data.
_base_ = 'resnet50_adn_digits.py'

work_dir = 'work_dirs/resnet50_adn_letters'
data_root = 'data/letters'

model = dict(
    data_preprocessor=dict(num_classes=26),
    # Residual branches start at zero: in so short a training a deeper network is otherwise behind at first.
    # The shortcuts' norms are doubled too: shared, their running statistics are of both depths and fit none,
    # which docs/evidence/README.md measures.
    backbone=dict(base_channels=4, zero_init_residual=True, skip_aware_norms='all'),
    head=dict(num_classes=26, in_channels=128),
)

pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=pipeline),
    sampler=dict(type='InfiniteSampler'),
)
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=pipeline))
test_dataloader = dict(dataset=dict(data_root=data_root, data_prefix='test', pipeline=pipeline))

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1000, val_interval=500)
val_cfg = dict(skips=['FFFF', 'TFFF', 'TTFF', 'TTTF', 'TTTT'])
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=150, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=150, end=1000, by_epoch=False),
]
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1, save_best=None),
)
log_processor = dict(by_epoch=False)

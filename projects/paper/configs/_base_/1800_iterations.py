train_cfg = dict(type='IterBasedTrainLoop', max_iters=1800, val_interval=600)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=270, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=270, end=1800, by_epoch=False),
]

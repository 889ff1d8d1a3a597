train_cfg = dict(type='IterBasedTrainLoop', max_iters=3600, val_interval=400)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=540, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=540, end=3600, by_epoch=False),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=150, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=150, end=1000, by_epoch=False),
]

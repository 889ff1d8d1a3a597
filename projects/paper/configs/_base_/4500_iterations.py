train_cfg = dict(type='IterBasedTrainLoop', max_iters=4500, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=540, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=540, end=4500, by_epoch=False),
]

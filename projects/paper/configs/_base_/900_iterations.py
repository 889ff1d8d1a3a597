train_cfg = dict(type='IterBasedTrainLoop', max_iters=900, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=90, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=90, end=900, by_epoch=False),
]

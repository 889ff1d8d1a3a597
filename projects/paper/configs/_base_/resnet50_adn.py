# A narrow ResNet50-ADN that is trained by self-distillation.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=26, mean=[127.5] * 3, std=[127.5] * 3),
    # Residual branches start at zero: in so short a training a deeper network is otherwise behind at first.
    # The shortcuts' norms are doubled too: if both depths share them, their running statistics are a mixture
    # that fits neither depth, which docs/evidence/README.md measures.
    backbone=dict(
        type='mmadn.ADNResNet',
        depth=50,
        stem_channels=16,
        base_channels=4,
        zero_init_residual=True,
        skip_aware_norms='all',
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=26, in_channels=128, topk=(1,), cal_acc=True),
)
custom_hooks = [dict(type='mmadn.SelfDistillationHook')]
val_cfg = dict(type='mmadn.SubnetValLoop', skips=['FFFF', 'TFFF', 'TTFF', 'TTTF', 'TTTT'])
test_cfg = dict(type='mmadn.SubnetTestLoop')

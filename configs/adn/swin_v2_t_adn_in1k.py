# The published code has this network; the paper states neither a recipe nor an accuracy for it. The recipe is
# that of Swin-T, at 256x256.
_base_ = 'swin_t_adn_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mmadn.ADNSwinTransformerV2', arch='tiny', img_size=256, drop_path_rate=0.1
    )
)

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=256)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=256)
test_pipeline[2].update(crop_size=256)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

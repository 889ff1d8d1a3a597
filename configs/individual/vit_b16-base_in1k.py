# The paper's accuracy: 78.7 (top-1). Only the blocks that are mandatory in the adaptive network.
_base_ = 'vit_b16_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=768, num_layers=8, num_heads=12, feedforward_channels=3072)
    )
)

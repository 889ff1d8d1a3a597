# The paper's accuracy: 77.4 (top-1). Only the blocks that are mandatory in the adaptive network.
_base_ = 'swin_t_in1k.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=96, depths=[1, 1, 3, 1], num_heads=[3, 6, 12, 24]))
)

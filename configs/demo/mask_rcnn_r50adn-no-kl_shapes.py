# The base-net learns from the ground truth alone.
_base_ = 'mask_rcnn_r50adn_shapes.py'

work_dir = 'work_dirs/demo_det_no_kl'
custom_hooks = [dict(type='mmadn.SelfDistillationHook', features=())]

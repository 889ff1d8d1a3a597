# Table 3: the stages' feature maps are distilled too.
_base_ = 'resnet50_adn_letters.py'

work_dir = 'work_dirs/resnet50_adn-features_letters'
custom_hooks = [dict(type='mmadn.SelfDistillationHook', features=[f'backbone.layer{i}' for i in range(1, 5)])]

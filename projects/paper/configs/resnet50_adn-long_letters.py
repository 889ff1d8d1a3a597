_base_ = ['_base_/resnet50_adn.py', '_base_/letters.py', '_base_/3600_iterations.py']

work_dir = 'work_dirs/resnet50_adn-long_letters'

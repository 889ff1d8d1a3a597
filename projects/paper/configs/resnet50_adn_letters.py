_base_ = ['_base_/resnet50_adn.py', '_base_/letters.py', '_base_/1000_iterations.py']

work_dir = 'work_dirs/resnet50_adn_letters'

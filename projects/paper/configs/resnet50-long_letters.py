_base_ = ['_base_/resnet50.py', '_base_/letters.py', '_base_/3600_iterations.py']

work_dir = 'work_dirs/resnet50-long_letters'

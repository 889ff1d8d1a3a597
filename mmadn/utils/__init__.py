import warnings

# mmcv without compiled operators says so at each start; classifiers need none.
warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')

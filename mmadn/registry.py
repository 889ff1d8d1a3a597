"""The scope `mmadn` in the OpenMMLab registries.

mmengine imports this module when it meets `type='mmadn.X'` and then the package named in `locations`,
so that a config needs no `custom_imports`.
"""

from mmengine import registry as root

MODELS = root.Registry('model', parent=root.MODELS, scope='mmadn', locations=['mmadn'])
HOOKS = root.Registry('hook', parent=root.HOOKS, scope='mmadn', locations=['mmadn'])
LOOPS = root.Registry('loop', parent=root.LOOPS, scope='mmadn', locations=['mmadn'])
DATASETS = root.Registry('dataset', parent=root.DATASETS, scope='mmadn', locations=['mmadn'])

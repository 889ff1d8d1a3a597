"""The scope `mmadn` in the OpenMMLab registries.

mmengine imports this module when it meets `type='mmadn.X'` and then the package named in `locations`,
so that a config needs no `custom_imports`.
"""

from importlib import import_module

from mmengine import registry as root
from mmengine.registry import DefaultScope

# Where the backbones are that a library has in a class of its own, by the default scope of its configs.
HOSTS = {'mmdet': 'mmadn.models.backbones.mmdet'}


class HostRegistry(root.Registry):
    """Looks a name up as `<default scope>/<name>` first, so that a detector gets mmdet's own ResNet."""

    def get(self, key: str):
        scope = DefaultScope.get_current_instance()
        if scope is None or scope.scope_name not in HOSTS:
            return super().get(key)
        import_module(HOSTS[scope.scope_name])
        hosted = f'{scope.scope_name}/{key.rpartition(".")[2]}'
        return self._module_dict.get(hosted) or super().get(key)


MODELS = HostRegistry('model', parent=root.MODELS, scope='mmadn', locations=['mmadn'])
HOOKS = root.Registry('hook', parent=root.HOOKS, scope='mmadn', locations=['mmadn'])
LOOPS = root.Registry('loop', parent=root.LOOPS, scope='mmadn', locations=['mmadn'])
DATASETS = root.Registry('dataset', parent=root.DATASETS, scope='mmadn', locations=['mmadn'])

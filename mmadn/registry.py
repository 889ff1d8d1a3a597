"""The scope `mmadn` in the OpenMMLab registries.

mmengine imports this module when it meets `type='mmadn.X'` and then the package named in `locations`,
so that a config needs no `custom_imports`.
"""

from mmengine import registry as root
from mmengine.registry import DefaultScope

# The library whose backbones the configs of another one use.
BUILT_ON = {'mmdet3d': 'mmdet', 'mmrotate': 'mmdet', 'mmyolo': 'mmdet'}


class BackboneRegistry(root.Registry):
    """Knows `ADN` + the name of any backbone or model, which is made adaptive when it is asked for.

    It is the backbone of the library that the config belongs to, by its default scope, or else
    mmpretrain's. `mmadn.mmpretrain.ADNResNet` says of which library it is.
    """

    def get(self, key: str) -> type | None:
        found = super().get(key)
        library, _, name = key.removeprefix('mmadn.').rpartition('.')
        if found is None and name.startswith('ADN'):
            for each in [library] if library else _libraries():
                stock = root.MODELS.get(f'{each}.{name.removeprefix("ADN")}')
                if stock is not None:
                    from .models.backbones.adaptive import adaptive  # which needs this module

                    return adaptive(stock)
        return found


def _libraries() -> list[str]:
    scope = DefaultScope.get_current_instance()
    scope = 'mmengine' if scope is None else scope.scope_name
    return list(dict.fromkeys([scope, BUILT_ON.get(scope, scope), 'mmpretrain']))


MODELS = BackboneRegistry('model', parent=root.MODELS, scope='mmadn', locations=['mmadn'])
HOOKS = root.Registry('hook', parent=root.HOOKS, scope='mmadn', locations=['mmadn'])
LOOPS = root.Registry('loop', parent=root.LOOPS, scope='mmadn', locations=['mmadn'])
DATASETS = root.Registry('dataset', parent=root.DATASETS, scope='mmadn', locations=['mmadn'])

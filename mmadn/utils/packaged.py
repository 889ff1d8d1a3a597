"""The configs that come with the package, by name."""

from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

# Where OpenMMLab's packages have configs, tools and the index of models; in a clone these are links.
PACKAGED = Path(__file__).parents[1] / '.mim'


def config_path(name: str) -> str:
    """The path of a config: itself where it is a file, else that of the packaged config of this name."""
    paths = (Path(name), PACKAGED / 'configs' / name, PACKAGED / name)
    return str(next((path for path in paths if path.is_file()), name))


def resolve_packaged_bases() -> None:
    """Lets `_base_ = 'mmadn::adn/resnet50_adn_in1k.py'` name a packaged config.

    mmengine has a fixed list of packages for that, and would look up everything in such a base, an
    `ImageClassifier` too, in the registries of mmadn. The base's own `default_scope` says better.
    """
    of_others = Config._get_cfg_path

    def find(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.partition('::')
        if package != 'mmadn':
            return of_others(cfg_path, filename)
        return str(PACKAGED / 'configs' / name), None

    Config._get_cfg_path = staticmethod(find)
    MODULE2PACKAGE['mmadn'] = 'mmadn'  # for mmengine.hub
    if find_spec('mmseg'):  # mmengine asks for a distribution mmsegmentation, which may have another name
        MODULE2PACKAGE['mmseg'] = 'mmseg'

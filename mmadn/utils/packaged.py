"""The configs that come with the package, by name."""

from pathlib import Path

# Where OpenMMLab's packages have configs, tools and the index of models; in a clone these are links.
PACKAGED = Path(__file__).parents[1] / '.mim'


def config_path(name: str) -> str:
    """The path of a config: itself where it is a file, else that of the packaged config of this name."""
    paths = (Path(name), PACKAGED / 'configs' / name, PACKAGED / name)
    return str(next((path for path in paths if path.is_file()), name))

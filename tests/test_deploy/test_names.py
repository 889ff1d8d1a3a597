"""The public names of `mmadn.deploy`."""

import inspect
import pkgutil

import pytest

from mmadn import deploy
from mmadn.deploy import compiling, fusing  # noqa: F401  modules, which must not take the functions' places


def test_no_module_has_the_name_of_a_function():
    assert not set(deploy.__all__) & {module.name for module in pkgutil.iter_modules(deploy.__path__)}


@pytest.mark.parametrize('name', deploy.__all__)
def test_public_names(name):
    assert inspect.isfunction(getattr(deploy, name)) or inspect.isclass(getattr(deploy, name))


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'mmadn.deploy' has no attribute 'compiler'"):
        deploy.compiler  # noqa: B018

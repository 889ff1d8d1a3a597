"""What a command line shows of an error."""

import pytest

from mmadn import errors
from mmadn.cli import plain_errors


@pytest.mark.parametrize(
    'error',
    [
        errors.InputError('alpha=2: give a number between 0 and 1'),
        errors.NotAdaptiveError('the backbone has no adaptive depth'),
        errors.MissingPackageError('pip install onnx'),
        errors.FailedError('the training failed'),
        FileNotFoundError(2, 'No such file or directory', 'absent.pth'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_user_can_mend_is_one_line(error):
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise error
    assert ended.value.code == f'error: {error}'


@pytest.mark.parametrize(
    'error',
    [
        ModuleNotFoundError("No module named 'mmdet'", name='mmdet'),
        ModuleNotFoundError(
            'mmdet is not installed, please install mmdet manually'
        ),  # mmengine's, for a base
        ModuleNotFoundError("No module named 'mmcv._ext'", name='mmcv._ext'),
    ],
)
def test_a_set_up_for_classifiers_says_what_detectors_need(error):
    with pytest.raises(SystemExit, match='detectors need mmdet, .*: `make setup`'), plain_errors():
        raise error


@pytest.mark.parametrize('error', [ValueError, TypeError, RuntimeError, ImportError, KeyError])
def test_a_fault_of_torch_or_mmdet_keeps_its_traceback(error):
    with pytest.raises(error), plain_errors():
        raise error('shape mismatch')


@pytest.mark.parametrize(
    'kind, base',
    [
        (errors.InputError, ValueError),
        (errors.NotAdaptiveError, TypeError),
        (errors.MissingPackageError, ImportError),
        (errors.FailedError, RuntimeError),
    ],
)
def test_python_code_catches_them_as_the_builtin_kinds(kind, base):
    assert issubclass(kind, base) and issubclass(kind, errors.UserError)

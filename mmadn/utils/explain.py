"""Errors of the libraries that a user can mend, in one line."""

import difflib
import inspect
import re
from collections.abc import Iterable
from types import FrameType

# What a data worker's error looks like in the main process, where all of it is the message.
_FROM_WORKER = re.compile(r'^Caught \w+ in DataLoader worker process')


def explain(error: BaseException) -> str | None:
    """What to print of an error of torch or OpenMMLab, or None if it is no mistake that a user can mend."""
    text = message(error)
    argument = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    if isinstance(error, TypeError) and argument:
        owner, name = argument.groups()
        return f'{owner} has no setting {name!r}{near(name, _arguments(error, owner))}'
    kind = re.match(r'\W*(\S+) is not in the \S+ registry', text)
    if isinstance(error, KeyError) and kind:
        return f'type={kind[1]!r} is not known{near(kind[1], _types(error))}'
    if isinstance(error, ModuleNotFoundError) and (error.name == 'mmcv._ext' or 'mmdet' in text):
        return f'{text}; detectors need mmdet, and mmcv with compiled operators: `make setup`'
    image = re.search(r'failed to load image: (.*)', text)
    if isinstance(error, AssertionError) and image:
        return f'{image[1]} cannot be read as an image; replace or remove it'
    return None


def message(error: BaseException) -> str:
    """The message of an error, without the traceback that one from a data worker carries in it."""
    text = str(error)
    if isinstance(error, FileNotFoundError) and error.filename is not None:  # the others say it themselves
        return f'{str(error.filename)!r}: there is no such file or folder; check the path'
    return text.strip().splitlines()[-1].partition(': ')[2] if _FROM_WORKER.match(text) else text


def near(name: str, accepted: Iterable[str]) -> str:
    """'; did you mean ...?' with the name that is most like it, and nothing where none is."""
    found = difflib.get_close_matches(name, list(accepted), n=1, cutoff=0.7)
    return f'; did you mean {found[0]!r}?' if found else ''


def _arguments(error: BaseException, owner: str) -> set[str]:
    """The names of what a class takes whose call failed."""
    frame = _innermost(error)
    known = [frame.f_globals.get(owner), frame.f_locals.get('obj_cls'), type(frame.f_locals.get('self'))]
    for cls in known:
        if inspect.isclass(cls) and owner in (each.__name__ for each in cls.__mro__):
            inits = [each.__init__ for each in cls.__mro__ if '__init__' in vars(each) and each is not object]
            return {name for init in inits for name in inspect.signature(init).parameters} - {'self'}
    return set()


def _types(error: BaseException) -> set[str]:
    """The names that a registry knows which did not know one."""
    registry, names = _innermost(error).f_locals.get('registry'), set()
    while registry is not None:
        names |= registry.module_dict.keys()
        names |= {f'mmadn.ADN{name}' for each in registry.children.values() for name in each.module_dict}
        names |= {f'{scope}.{name}' for scope, each in registry.children.items() for name in each.module_dict}
        registry = registry.parent
    return names


def _innermost(error: BaseException) -> FrameType:
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame

"""Errors that a user can mend: the command lines print their message in one line, without a traceback.

Every other exception is a fault of the program, and is shown whole.
"""


class UserError(Exception):
    """The message says what was given, what is accepted, and what to do next."""


class InputError(UserError, ValueError):
    """An argument, a setting of a config or the contents of a file do not fit."""


class NotAdaptiveError(UserError, TypeError):
    """The model is of another kind than the function needs, mostly one without an adaptive depth."""


class MissingPackageError(UserError, ImportError):
    """An optional package is not installed."""


class FailedError(UserError, RuntimeError):
    """A step that was begun did not give what it has to, and nothing was written."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

VAL_SHARE = 0.2


class OwnData(NamedTuple):
    """What was found of a user's data.

    Args:
        settings: Of the data set of 'train' and of 'val', as a config has them.
        classes: Their names, in the order of the labels.
        images: How many there are of 'train' and of 'val'.
        remarks: What the user should know, a line each.
    """

    settings: dict[str, dict]
    classes: list[str]
    images: dict[str, int]
    remarks: list[str]


def choose_val(members: Mapping[str, Sequence[str]]) -> set[str]:
    """Chooses a fifth of the images of every class for validation, the same ones wherever it runs.

    An image may be of several classes, as those of a detector are; the rarest class chooses first. The choice
    depends on the names of the images alone, not on the order in which they are listed, and images that are
    added later change little of it. A class with several images has one at least on either side, unless
    rarer classes have put all of its images on the same one.

    Args:
        members: The names of the images of each class.

    Returns:
        The names of the images that are for validation.
    """
    chosen: dict[str, bool] = {}
    for _, names in sorted(members.items(), key=lambda item: (len(item[1]), item[0])):
        names = sorted(names, key=_draw)
        wanted = min(max(1, round(VAL_SHARE * len(names))), len(names) - 1)
        wanted -= sum(chosen.get(name, False) for name in names)
        for i, name in enumerate(name for name in names if name not in chosen):
            chosen[name] = i < wanted
    return {name for name, is_val in chosen.items() if is_val}


def _draw(name: str) -> str:
    """What an image draws in the lottery: the same on every machine, unlike Python's own `hash`."""
    return hashlib.sha256(name.encode()).hexdigest()

"""How the depths of a network are named. Free of torch, because what runs exported files needs it too."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InputError

PRESETS = {'super': 'F', 'base': 'T'}
Skip = str | Sequence[bool] | bool  # a depth, in any form that `DepthNames.parse_skip` reads


class DepthNames:
    """Mixin for what has several depths. A name has a letter for each stage: T skips it, F runs it."""

    num_skippable_stages: int

    def subnets(self) -> list[str]:
        """The names of all 2^n sub-networks, super-net first and base-net last."""
        return [''.join(s) for s in itertools.product('FT', repeat=self.num_skippable_stages)]

    @property
    def part_lengths(self) -> Mapping[str, int]:
        """How many letters each part has, in their order; empty for what has one part alone."""
        return {}

    def parse_skip(self, skip: Skip) -> str:
        """The name of a depth: of T and F, bools, "super" (all F), "base" (all T) or one bool.

        Where there are several parts, it can be given by their names, "backbone=TTTT,decoder=T" or a dict,
        and parts that are not named run whole.

        Raises:
            ValueError: `skip` is none of these, or has not one entry a skippable stage.
        """
        lengths, named = self.part_lengths, skip
        if lengths and isinstance(skip, str) and '=' in skip:
            words = re.sub(r'\s*=\s*', '=', skip).replace(',', ' ').split()
            pairs = [part.partition('=') for part in words]
            named = {name: depth for name, _, depth in pairs}
            if len(named) < len(pairs):
                raise InputError(f'skip={skip!r}: give each part once')
        if not lengths or not isinstance(named, Mapping):
            return _letters(skip, self.num_skippable_stages, lengths)
        if unknown := set(named) - set(lengths):
            names = ', '.join(sorted(map(str, unknown)))
            raise InputError(f'skip={skip!r}: there is no part {names}; give depths of {", ".join(lengths)}')
        letters = ''
        for name, length in lengths.items():
            try:
                letters += _letters(named.get(name, 'super'), length)
            except InputError as error:
                raise InputError(f'{name}: {error}') from None
        return letters


def _letters(skip: Skip, n: int, parts: Mapping[str, int] | None = None) -> str:
    name = _plain(skip)
    if isinstance(name, (list, tuple)):
        name = [_plain(flag) for flag in name]
    if isinstance(name, bool):
        name = 'FT'[name] * n
    elif isinstance(name, list) and all(isinstance(flag, bool) for flag in name):
        name = ''.join('FT'[flag] for flag in name)
    elif isinstance(name, str):
        name = PRESETS[name] * n if name in PRESETS else name
    if not isinstance(name, str) or len(name) != n or set(name) - {'T', 'F'}:
        if n == 1:
            raise InputError(f'skip={skip!r}: give one letter, T to skip or F to run, or one bool')
        of = ' and '.join(f'{length} of {part}' for part, length in (parts or {}).items())
        such = ('T' * (n // 2)).ljust(n, 'F')
        raise InputError(
            f'skip={skip!r}: give {n} letters{of and f" ({of})"}, T to skip or F to run the skippable '
            f'sub-path of each stage, such as "{such}", {n} bools, one bool, "super" or "base"'
        )
    return name


def _plain(value: Any) -> Any:
    """A value in Python's own types, where it is one of numpy's or torch's."""
    return value.tolist() if hasattr(value, 'tolist') else value

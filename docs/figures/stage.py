"""Draws a residual stage with its skippable sub-path run and skipped: `python docs/figures/stage.py`.

Two narrow pictures and not a wide one, so that a telephone shows them one below the other in full size. The
colours are those of the page, which differ in the dark, with light ones for who opens a file by itself.
"""

from html import escape
from pathlib import Path

WIDTH, BLOCK, LEFT = 340, (190, 44), 75
INK, FAINT = 'var(--color-foreground-primary, #1a1a1a)', 'var(--color-foreground-muted, #6b6f76)'
BLUE, ORANGE = 'var(--figure-blue, #0072b2)', 'var(--figure-orange, #b84a00)'

BLOCKS = [  # of stage 3 of ResNet50: 6 blocks, of which the first 3 are mandatory
    *(('mandatory', f'block {i}') for i in (1, 2, 3)),
    *(('skippable', f'block {i}') for i in (4, 5, 6)),
]


def stage(skipped: bool) -> str:
    """The SVG of a stage, with its switch at T or at F."""
    letter, middle = 'FT'[skipped], LEFT + BLOCK[0] / 2
    title, y = f'switch at {letter}: {"skip" if skipped else "whole"}', 62
    parts = [text(WIDTH / 2, 24, title, 17, bold=True)]
    parts.append(text(middle, y - 8, 'from the stage before', 13, FAINT))
    end = y + 26 + len(BLOCKS) * 66
    for i, (kind, name) in enumerate(BLOCKS):
        top, gone = y + 26 + 66 * i, skipped and kind == 'skippable'
        colour = ORANGE if kind == 'skippable' else BLUE
        if not gone:
            parts.append(arrow(middle, top - 22, top - 2))
        parts.append(box(LEFT, top, colour, gone))
        parts.append(text(middle, top + 19, name, 15, FAINT if gone else INK))
        norms = 'norms, second copy' if skipped else 'norms, first copy'
        note = 'norms' if kind == 'skippable' else norms
        parts.append(text(middle, top + 36, 'not computed' if gone else note, 13, FAINT if gone else colour))
    for kind, first, colour in (('mandatory', 0, BLUE), ('skippable', 3, ORANGE)):
        top = y + 26 + 66 * first
        parts.append(brace(LEFT - 14, top, top + 2 * 66 + BLOCK[1], colour))
        place = LEFT - 30, top + 66 + BLOCK[1] / 2
        parts.append(text(*place, kind, 14, colour, turn=f'rotate(-90 {place[0]} {place[1]})'))
    if skipped:  # around the skippable blocks
        start, right = end - 220, LEFT + BLOCK[0] + 34
        path = f'M{middle} {start} v11 H{right - 10} q10 0 10 10 V{end - 26} q0 10 -10 10 H{middle}'
        parts.append(f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="2"/>')
        place = right + 16, (start + end) / 2
        parts.append(text(*place, 'identity', 14, turn=f'rotate(90 {place[0]} {place[1]})'))
    parts.append(arrow(middle, end - (16 if skipped else 22), end))
    parts.append(text(middle, end + 22, 'to the next stage', 13, FAINT))
    said = 'the mandatory blocks run, the skippable ones ' + ('are passed by' if skipped else 'run too')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {end + 36}" width="{WIDTH}" '
        f'role="img" font-family="system-ui, sans-serif">\n<title>A stage, switch at {letter}: {said}'
        f'</title>\n' + '\n'.join(parts) + '\n</svg>\n'
    )


def text(
    x: float, y: float, words: str, size: int, colour: str = INK, bold: bool = False, turn: str = ''
) -> str:
    more = (' font-weight="600"' if bold else '') + (f' transform="{turn}"' if turn else '')
    style = f'font-size="{size}" fill="{colour}" text-anchor="middle"{more}'
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'


def box(x: float, y: float, colour: str, gone: bool) -> str:
    dash = ' stroke-dasharray="5 5" opacity="0.55"' if gone else ''
    return (
        f'<rect x="{x}" y="{y}" width="{BLOCK[0]}" height="{BLOCK[1]}" rx="7" fill="{colour}" '
        f'fill-opacity="{0.03 if gone else 0.13}" stroke="{colour}" stroke-width="2"{dash}/>'
    )


def arrow(x: float, start: float, end: float) -> str:
    path = f'M{x} {start} V{end - 5} m-5 -3 l5 8 5 -8'
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="2"/>'


def brace(x: float, top: float, bottom: float, colour: str) -> str:
    return f'<path d="M{x + 6} {top} h-6 V{bottom} h6" fill="none" stroke="{colour}" stroke-width="2"/>'


if __name__ == '__main__':
    for skipped in (False, True):
        (Path(__file__).parent / f'stage_{"FT"[skipped]}.svg').write_text(stage(skipped))

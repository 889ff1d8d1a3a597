"""A local page on which to move the depth of a network and to see what it finds and how long it takes.

`front` and `look` are behind it and need no Gradio.
"""

import numpy as np
from mmengine.config import Config

from ..evaluation.flops import measure
from ..evaluation.table import check, quality_of, read_table
from ..utils.report import digits, pareto_front
from .viewer import Sight, Viewer

try:
    import gradio
except ImportError:
    gradio = None

ABOUT = """## {}
Give an image and move the depth: F runs a stage whole, T skips part of it."""


def front(viewer: Viewer, cfg: Config, profile: str | None = None) -> list[str]:
    """The depths to choose from, the cheapest first.

    Args:
        profile: A `profile.json` or `subnets.json` of the network. They are its Pareto front and both ends.
            By default they are all depths in the order of their FLOPs.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is none of this network.
    """
    rows = read_table(profile) if profile else measure(cfg, skips='all')
    check(rows, viewer.model)
    timed = all('latency_p50_ms' in row for row in rows)
    best = pareto_front(
        rows, 'latency_p50_ms' if timed else 'gflops', quality_of(rows) if profile else 'gflops'
    )
    base, whole = map(viewer.depth.parse_skip, ('base', 'super'))
    return list(dict.fromkeys([base, *(row['skip'] for row in best), whole]))


def look(viewer: Viewer, image: np.ndarray | None, skip: str) -> list:
    """What the page shows of an image of shape (H, W, 3), RGB.

    Returns:
        The latency, the result and the cost at the depth `skip`, and the same of the super-net; the result is
        a classifier's probabilities by class, or a detector's picture. None of all these without an image.
    """
    if image is None:
        return [None] * 6
    image = image[..., ::-1]
    return [
        part
        for sight in viewer.see(image, [skip, 'super'], rounds=3)
        for part in _shown(viewer, image, sight)
    ]


def _shown(viewer: Viewer, image: np.ndarray, sight: Sight) -> tuple:
    latency, cost = f'### {sight.skip}: {digits(sight.latency_ms)} ms', sight.flops
    if viewer.classifier:
        return latency, viewer.scores(sight.sample), cost
    return latency, viewer.drawn(image, sight.sample), f'{cost}, {viewer.summary(sight.sample)}'


def page(viewer: Viewer, depths: list[str], title: str) -> 'gradio.Blocks':
    """The page; `launch` serves it."""
    with gradio.Blocks(title=title, analytics_enabled=False) as blocks:
        gradio.Markdown(ABOUT.format(title))
        with gradio.Row():
            image = gradio.Image(
                sources=['upload', 'webcam', 'clipboard'], label='Image', height=300, buttons=[]
            )
            depth = gradio.Slider(
                0,
                len(depths) - 1,
                value=0,
                step=1,
                label='Depth',
                info=f'from {depths[0]}, the cheapest, to {depths[-1]}',
                buttons=[],
            )
        shown = []
        with gradio.Row():
            for label in ('Chosen depth', 'Whole network'):
                with gradio.Column(min_width=140 if viewer.classifier else 240):
                    shown.append(gradio.Markdown())
                    if viewer.classifier:
                        shown.append(gradio.Label(label=label, num_top_classes=5))
                    else:
                        shown.append(gradio.Image(label=label, interactive=False, buttons=['fullscreen']))
                    shown.append(gradio.Markdown())
        gradio.on(
            [image.change, depth.change],
            lambda pixels, place: look(viewer, pixels, depths[int(place)]),
            [image, depth],
            shown,
            show_progress='hidden',
            trigger_mode='always_last',
            concurrency_limit=1,  # the depth belongs to the model, which two visitors would move
        )
    return blocks


def launch(blocks: 'gradio.Blocks', host: str = '127.0.0.1', port: int | None = None) -> str:
    """Serves the page until the program ends, on this machine alone unless `host` says otherwise.

    Neither Gradio nor the page use any other machine.

    Returns:
        The address of the page.
    """
    fonts = dict(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])  # of the browser
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        theme=gradio.themes.Default(**fonts),
        share=False,
        enable_monitoring=False,
        ssr_mode=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    return address

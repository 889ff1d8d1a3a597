"""How Sphinx builds the manual: `make docs`."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

from model_table import model_table  # noqa: E402

import mmadn  # noqa: E402

project = 'mmadn'
author = copyright = 'The mmadn authors'
version = release = mmadn.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx_copybutton']
exclude_patterns = ['_build', '**.ipynb_checkpoints']
html_theme = 'furo'
html_title = f'mmadn {version}'
html_static_path = ['_static']
html_css_files = ['manual.css']
html_show_sourcelink = False

myst_enable_extensions = ['deflist', 'substitution']
myst_heading_anchors = 3
myst_substitutions = {'models': model_table()}

# The tutorials run when the manual is built. What they gave is kept until one of their cells changes.
nb_execution_mode = 'cache'
nb_execution_cache_path = str(DOCS / '_build' / 'tutorials')
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True

# Single backticks are code in the docstrings, as in Markdown.
default_role = 'code'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autodoc_member_order = 'bysource'
autodoc_inherit_docstrings = False

# A name of this package that leads nowhere is an error. Those of other packages would need the network.
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!mmadn\.).*')]


def prepare_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Gives a title to a table that a tool wrote, and takes links out of the manual as plain names."""
    page = Path(app.env.doc2path(docname))

    def inside(link: re.Match) -> str:
        text, target = link.groups()
        path = (page.parent / target.split('#')[0]).resolve()
        if '://' in target or target.startswith('#') or path.is_relative_to(DOCS):
            return link[0]
        name = path.relative_to(ROOT)
        return f'`{name}`' if text in (str(name), '') else f'{text} (`{name}`)'

    text = re.sub(r'(?<!!)\[([^\]]*)\]\(([^)\s]+)\)', inside, source[0])
    if docname.startswith(('evidence/', 'benchmarks/')) and not re.search('^# ', text, re.MULTILINE):
        text = f'# {", ".join(docname.split("/")[1:])}\n\n{text}'
    source[0] = text.replace(' ± ', '\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}')


def name_the_rest(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Napoleon takes `*args, **kwargs` for two arguments, and their stars for emphasis."""
    lines[:] = [line.replace('*args, **kwargs:', 'others:') for line in lines]


def setup(app: Sphinx) -> None:
    app.connect('source-read', prepare_page)
    app.connect('autodoc-process-docstring', name_the_rest, priority=400)

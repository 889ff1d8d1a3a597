"""What the manual says exists: commands, files and links. `make docs` builds it, which takes minutes."""

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
# What tools wrote beside the manual is of the versions that it was taken with.
RECORDED = ('_build', 'evidence', 'benchmarks')
MANUAL = [path for path in sorted(DOCS.rglob('*.md')) if path.relative_to(DOCS).parts[0] not in RECORDED]
PAGES = [ROOT / 'README.md', *MANUAL, DOCS / 'evidence/README.md', DOCS / 'evidence/detection/README.md']


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_page = pytest.mark.parametrize('page', PAGES, ids=relative)

TOOL = re.compile(r'(?:python )?tools/([\w/]+)\.py|mmadn ([a-z][\w-]+)')


def tool_of(command: str) -> Path | None:
    """The file of the tool that a command line calls, if it calls one."""
    match = TOOL.match(command)
    return match and ROOT / 'tools' / f'{match[1] or match[2].replace("-", "_")}.py'


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line in the page's blocks."""
    for block in blocks(page, 'bash'):
        for line in block.replace('\\\n', '').splitlines():
            yield shlex.split(line, comments=True)


COMMANDS = sorted({tuple(words) for page in PAGES for words in commands(page) if words})


@pytest.mark.parametrize('words', [words for words in COMMANDS if tool_of(' '.join(words))], ids=' '.join)
def test_a_command_line_parses(words, parse):
    parse(tool_of(' '.join(words)), words[2:])


def test_tools_and_options_in_the_text_exist(parse):
    text = '\n'.join(re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S) for page in PAGES)
    calls = [code for code in re.findall('`([^`\n]+)`', text) if tool_of(code)]
    assert len(calls) > 20
    options = {}
    for call in calls:
        options.setdefault(tool_of(call), set()).update(re.findall(r'--[a-z][a-z-]*', call))
    for tool, names in options.items():
        assert tool.is_file()
        if names and tool.name != 'setup_env.py':
            assert names <= {*parse(tool)._option_string_actions}, tool


def test_targets_of_make_exist():
    targets = set(re.findall(r'^([a-z-]+(?: [a-z-]+)*):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    targets = {name for names in targets for name in names.split()}
    named = {name for page in PAGES for name in re.findall(r'\bmake ([a-z-]+)`', page.read_text())}
    named |= {words[words.index('make') + 1] for words in COMMANDS if 'make' in words}
    assert {'demo', 'test'} <= named <= targets


@pytest.mark.parametrize('page', PAGES[:-2], ids=relative)
def test_configs_tools_and_modules_exist(page):
    text = re.sub(r'\]\([^)]*\)', '', page.read_text())  # links have a test of their own, and so has this:
    text = re.sub(r'^```\{toctree\}.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)
    rooms = 'configs|tools|mmadn|tests|projects|benchmarks'
    names = re.findall(rf'(?<![\w/.])((?:{rooms})/[\w./*{{}},-]*[\w*}}])', text)
    for name in names:
        choices = re.search('{(.*)}', name)
        for choice in choices[1].split(',') if choices else ['']:
            assert list(ROOT.glob(name.replace(choices[0], choice) if choices else name)), name


def anchors(page: Path) -> set[str]:
    """What a link may give after `#`: headings, as MyST and GitHub name them, and targets."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall('^#+ (.*)$', text, re.MULTILINE)
    slugs = {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}
    return slugs | set(re.findall(r'^\((.+)\)=$', text, re.MULTILINE))


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if '://' in link:
            continue
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_python_compiles_and_its_imports_exist(page):
    for block in [*blocks(page, 'python'), *blocks(page, r'\{code-cell\} ipython3')]:
        code = re.sub(r'^:\w+:.*\n', '', block, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(
                ('mmadn', 'projects', 'benchmarks')
            ):
                module = import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or import_module(f'{node.module}.{alias.name}')


def test_the_code_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = blocks(ROOT / 'README.md', 'python')
    names = {}
    exec(code, names)
    assert names['logits'].shape == (1, 1000)
    assert names['model'].backbone.skip == 'TTTT'


def test_the_backbones_of_the_manual_work(tmp_path, monkeypatch):
    zoo, module, settings, declared = blocks(DOCS / 'add-a-backbone.md', 'python')
    (tmp_path / 'strange.py').write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    for text, scope in ((zoo, 'mmdet'), (settings, 'mmpretrain')):
        (tmp_path / 'config.py').write_text(text.replace("'configs/", f"'{ROOT}/configs/"))
        cfg = Config.fromfile(tmp_path / 'config.py')
        args = {k: v for k, v in cfg.model.backbone.to_dict().items() if k != 'init_cfg'}
        with DefaultScope.overwrite_default_scope(scope):
            network, own = MODELS.build(args), ('residual_stages', 'type')
            name = args['type'].removeprefix('mmadn.ADN')
            stock = MODELS.build(dict(type=name, **{k: v for k, v in args.items() if k not in own}))
        check_backbone(network, stock)
    names = {'__name__': 'manual'}
    exec(declared, names)
    check_backbone(names['ADNStrange'](), stock)


@torch.no_grad()
def check_backbone(network, stock):
    images = torch.rand(1, 3, 32, 32)
    network.load_state_dict(stock.state_dict())
    network.eval(), stock.eval()  # of stock backbones this returns None
    assert torch.equal(network(images)[0], stock(images)[0])
    with network.skipping('base'):
        assert network(images)[0].shape == stock(images)[0].shape


def test_the_drawn_stage_is_that_of_its_script():
    stage = runpy.run_path(str(DOCS / 'figures/stage.py'))['stage']
    for skipped in (False, True):
        assert (DOCS / f'figures/stage_{"FT"[skipped]}.svg').read_text() == stage(skipped)


def test_every_page_is_in_the_contents():
    text = '\n'.join(path.read_text() for path in DOCS.rglob('*.md'))
    listed = {
        line for toc in re.findall(r'```\{toctree\}\n(.*?)```', text, re.S) for line in toc.splitlines()
    }
    pages = {path.relative_to(DOCS).with_suffix('') for path in MANUAL}
    assert {str(page) for page in pages if page.parts[0] != 'deploy'} - {'index'} <= listed
    assert {page.name for page in pages if page.parts[0] == 'deploy'} - {'index'} <= listed


def test_the_readme_is_short_and_names_both_commands():
    text = (ROOT / 'README.md').read_text()
    assert len(text.splitlines()) <= 120
    assert re.search('^make demo ', text, re.MULTILINE) and re.search('^make test ', text, re.MULTILINE)

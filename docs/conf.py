"""The site: `make docs`. What is the code's own, options and docstrings, is put in where pages ask for it."""

import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import sys
from pathlib import Path
from unittest import mock

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

project = 'mmseg-inflation'
author = 'The authors of mmseg-inflation'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
html_theme = 'furo'
html_title = 'Inflated vision Transformers'
exclude_patterns = ['_build']
myst_heading_anchors = 3
myst_enable_extensions = ['attrs_inline']
napoleon_use_ivar = True
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'

PLUGINS = ('inflation', 'lifting', 'tuning', 'models.encoders', 'models.segmentor', 'models.volume_segmentor',
           'models.losses', 'models.objective', 'checkpoints', 'certificate', 'carried', 'inference', 'export',
           'datasets.volumes', 'datasets.images', 'datasets.store', 'datasets.layouts', 'datasets.catalogue',
           'datasets.transforms', 'evaluation.metrics', 'evaluation.folder')
MODULES = (*(f'mmseg_plugins.{name}' for name in PLUGINS), 'benchmarks.results', 'benchmarks.grid.tables',
           'benchmarks.executors.base')


def experiment_keys() -> str:
    """A table of the keys of `experiment`, as keys.py knows them."""
    from mmseg_plugins import experiment
    from mmseg_plugins.keys import KEYS

    example = inspect.getdoc(experiment).split('A config of this project')[1].split('so that `--cfg-options')[0]
    rows = ['| key | is | left out | of |', '| --- | --- | --- | --- |']
    for name, key in KEYS.items():
        usual = f'`{key.usual}`' if key.usual is not None else 'None' if key.optional else 'not possible'
        rows.append(f'| `{name}` | {key.must_be} | {usual} | {key.of or "all"} |')
    return f'```text\nA config of this project{example.rstrip()}\n```\n\n' + '\n'.join(rows)


def grid_keys() -> str:
    """A table of the keys of a grid file, as reader.py knows them."""
    from benchmarks.grid.reader import GRID_KEYS

    return '\n'.join(['| key | is | written as |', '| --- | --- | --- |', *(
        f'| `{name}` | {meaning} | `{example}` |' for name, (_, example, meaning) in GRID_KEYS.items())])


def commands() -> str:
    """What each script says to --help."""
    from mmseg_plugins.cli import SCRIPTS

    parts = []
    for script in [*SCRIPTS.values(), 'tools/nnunet.py']:
        if not script.endswith('.py'):
            continue
        path = REPO / script
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        said = io.StringIO()
        with mock.patch.object(sys, 'argv', [script, '--help']), mock.patch.dict('os.environ', COLUMNS='100'), \
                contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            spec.loader.exec_module(module)
            module.main()
        parts.append(f'## {script}\n\n```text\n{said.getvalue().strip()}\n```')
    return '\n\n'.join(parts)


def api() -> str:
    """The public parts of the modules that are used from outside, by autodoc."""
    parts = []
    for name in MODULES:
        module = importlib.import_module(name)
        own = [member for member, value in vars(module).items() if not member.startswith('_')
               and getattr(value, '__module__', '') == name and inspect.getdoc(value)
               and (inspect.isclass(value) or inspect.isfunction(value))]
        parts.append(f'## {name}\n\n{inspect.getdoc(module).splitlines()[0]}')
        for member in own:
            kind = 'class' if inspect.isclass(getattr(module, member)) else 'function'
            parts.append(f'```{{eval-rst}}\n.. auto{kind}:: {name}.{member}\n```')
    return '\n\n'.join(parts)


GENERATED = {'experiment': experiment_keys, 'grid': grid_keys, 'commands': commands, 'api': api}


def read_source(app, docname: str, content: list[str]) -> None:
    """Fill in what is generated; a file of the repository that is no page is linked where it lies."""
    text = re.sub(r'<!-- generated: (\w+) -->\n\n.*', lambda match: GENERATED[match[1]](), content[0])

    def link(match: re.Match) -> str:
        target = match[2].partition('#')[0]
        if not (REPO / 'docs' / target).resolve().exists():
            raise FileNotFoundError(f'docs/{docname}.md links {target}, which is not there')
        return f'<a href="../../{match[2]}">{match[1]}</a>'
    content[0] = re.sub(r'(?<!!)\[([^\]]*)\]\((\.\./[^)]+)\)', link, text)


def as_written(app, what, name, found, options, lines: list[str]) -> None:
    """Docstrings are plain text: what is indented behind a colon is code, lines that begin with | are a table."""
    def depth(line: str) -> int:
        return len(line) - len(line.lstrip())

    text, code = [], None
    for line in lines:
        before = text[-1] if text else ''
        if code is not None and line.strip() and depth(line) <= code:
            code = None
        if code is None and line.strip():
            said = next((early for early in reversed(text) if early.strip()), '')
            if line.startswith('|') and not before.startswith('    |'):
                text += ['', '::', '']
            elif not before.strip() and said.endswith(':') and depth(line) > depth(said):
                text[len(text) - 1 - text[::-1].index(said)] += ':'
                code = depth(said)
            line = f'    {line}' if line.startswith('|') else re.sub(r'(?<!`)`([^`]+)`(?!`)', r'``\1``', line)
            line = line if code is not None else re.sub(r'(?<=\w)\*\*(?=\w)', r'\\*\\*', line)
        elif before.startswith('    |') and line.strip():
            text.append('')
        text.append(line)
    lines[:] = text


def setup(app) -> None:
    app.connect('source-read', read_source)
    app.connect('autodoc-process-docstring', as_written)

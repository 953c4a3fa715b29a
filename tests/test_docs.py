"""README and docs/: short where it must be, every link leads somewhere, every command is one that there is."""

import contextlib
import io
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
from conftest import REPO, call_script

from mmseg_plugins.keys import KEYS

PAGES = [REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md'))]
NAMES = [str(path.relative_to(REPO)) for path in PAGES]
BASH = ('tools/dist_train.sh', 'tools/dist_test.sh', 'tools/slurm_train.sh')


def prose_and_code(text: str) -> tuple[str, str]:
    """A page without its code, and the lines of its indented blocks and fenced shell ones, joined at \\."""
    fenced = re.findall(r'^```(\w*)\n(.*?)^```', text, re.S | re.M)
    prose = re.sub(r'^```.*?^```', '', text, flags=re.S | re.M)
    code = [line.strip() for line in re.sub(r' \\\n\s+', ' ', prose).split('\n') if line.startswith('    ')]
    code += [line for language, block in fenced if language == 'sh' for line in block.split('\n')]
    return re.sub(r'^    .*', '', prose, flags=re.M), '\n'.join(code)


def anchors(path: Path) -> set[str]:
    titles = re.findall(r'^#+ (.*)', prose_and_code(path.read_text())[0], re.M)
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}


def test_the_readme_is_a_first_screen_and_says_how_to_cite():
    assert len((REPO / 'README.md').read_text().splitlines()) <= 150
    assert all((REPO / name).is_file() for name in ('LICENSE', 'CITATION.cff'))


@pytest.mark.parametrize('path', PAGES, ids=NAMES)
def test_links_lead_somewhere(path):
    prose, _ = prose_and_code(path.read_text())
    for target in re.findall(r'\]\(([^)]+)\)', prose):
        file, _, anchor = target.partition('#')
        if not file.startswith('http'):
            found = path.parent / file if file else path
            assert found.exists(), f'{path.name}: links {target}'
            assert not anchor or anchor in anchors(found), f'{path.name}: {found.name} has no heading {anchor}'


def call(script: str, *words: str) -> tuple[int | None, str]:
    """What a script's `main` returns, and what it prints."""
    said, status = io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        status = call_script(script, *words)
    return status, said.getvalue()


@cache
def help_of(script: str) -> str:
    return call(script, '--help')[1]


COMMAND = re.compile(r'(?:\$ )?(?:[A-Z_]+=\S+ )*(?:python |torchrun .*? |(?=\S+\.sh))'
                     r'((?:tools|benchmarks)/[\w/]+\.(?:py|sh))(.*)')


def commands_of(path: Path):
    """(script, words behind it) of each command of a page."""
    for line in prose_and_code(path.read_text())[1].split('\n'):
        for command in line.split(' && '):
            if match := COMMAND.fullmatch(command):
                yield match[1], shlex.split(match[2], comments=True)


@pytest.mark.parametrize('path', PAGES, ids=NAMES)
def test_commands_are_ones_that_there_are(path):
    """Their scripts, options, keys of `experiment`, configs and grids; what is in capitals is the reader's."""
    for script, words in commands_of(path):
        assert (REPO / script).is_file(), f'{path.name}: {script}'
        if script.startswith('benchmarks/speed'):
            known = (REPO / script).read_text() + (REPO / 'benchmarks/speed/common.py').read_text()
        else:
            known = help_of('tools/train.py' if script in BASH else script)
        for word in words:
            option = word.partition('=')[0]
            if option.startswith('--'):
                assert re.search(rf'{option}\b', known), f'{path.name}: {script} has no {option}'
            elif option.startswith('experiment.'):
                assert option.removeprefix('experiment.') in KEYS, f'{path.name}: {word}'
            elif word.startswith('configs/'):
                assert (REPO / word).is_file(), f'{path.name}: {word}'
        grids = words[words.index('--grid') + 1:][:1] if '--grid' in words else []
        for grid in grids:
            file = REPO / f'benchmarks/grids/{grid}.yaml'
            assert grid.endswith('.yaml') or file.is_file(), f'{path.name}: {grid}'


def test_the_commands_are_found():
    found = [script for path in PAGES for script, _ in commands_of(path)]
    assert len(found) > 60 and {'tools/predict.py', 'benchmarks/run_grid.py', 'tools/dist_train.sh'} <= set(found)


def only_looks(script: str, words: list[str]) -> bool:
    """Whether a command writes nothing, and needs nothing that is not in the repository."""
    if any(word.isupper() or word.endswith('.yaml') for word in words):  # the reader's own
        return False
    looks = '--dry-run' in words or '--plan' in words and '--device' in words
    return (script == 'benchmarks/run_grid.py' and looks or script == 'tools/sources.py' and not words
            or script == 'tools/flops.py'
            or script == 'benchmarks/report.py' and words[:1] == ['results/phantom-bf16'])


def test_commands_that_only_look_are_run(tmp_path, monkeypatch):
    """From a folder with the committed results and the phantom, which no other test has made."""
    monkeypatch.chdir(tmp_path)
    for folder in ('results', 'configs'):
        shutil.copytree(REPO / folder, tmp_path / folder)
    call('tools/prepare_data.py', 'phantom')
    run = {(script, *words) for path in PAGES for script, words in commands_of(path) if only_looks(script, words)}
    assert len(run) >= 4
    for script, *words in sorted(run):
        status, said = call(script, *words)
        assert not status and said, f'{script} {words}'

"""Every script of benchmarks/speed ends with its table, on nothing that was prepared before."""

import importlib
import re
import shlex
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from conftest import REPO

from benchmarks import coverage
from benchmarks.speed import common, options
from mmseg_plugins.datasets.catalogue import CATALOGUE

SPEED = REPO / 'benchmarks' / 'speed'
SCRIPTS = sorted({path.stem for path in SPEED.glob('*.py')} - {'__init__', 'common'})
TINY = {'loader': ['--size', '64', '--repeats', '1'], 'metric': ['--size', '64', '--repeats', '1'],
        'options': ['--repeats', '1', '--models', 'mini', '--size', '32', '--batch', '4', '--steps', '2'],
        'step': ['--size', '64', '--repeats', '1', '--input', '28', '--batch', '2',
                 '--precision', 'bf16', '--inference-precision', 'bf16']}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a script in an empty folder, and returns its page and the command it names."""
    monkeypatch.chdir(tmp_path)
    split = dict(train=range(1, 3), test=range(3, 4))  # of the phantom
    monkeypatch.setitem(CATALOGUE, 'phantom', replace(CATALOGUE['phantom'], split=split))
    monkeypatch.setattr(shutil, 'which', lambda name: None)  # no compiler, whose work would take minutes

    def run(script: str, *arguments: str) -> tuple[str, list[str]]:
        page = tmp_path / 'a page.md'
        monkeypatch.setattr(sys, 'argv', [f'{script}.py', *arguments, '--out', page.name])
        assert importlib.import_module(f'benchmarks.speed.{script}').main() == 0
        text = page.read_text()
        return text, shlex.split(re.search('^By `(.*?)` on ', text, re.M)[1])

    return run


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_script_ends_with_its_table(run, tmp_path, capsys, script):
    text, repeat = run(script, *TINY[script])
    assert text in capsys.readouterr().out
    assert re.search(r'^\| [^|]+ \| [\d.]+ \|', text, re.M) and ', 1 thread, Python' in text
    assert repeat == ['python', f'benchmarks/speed/{script}.py', *repeat[2:]]
    assert sorted(repeat[2:]) == sorted([*TINY[script], '--out', str(tmp_path / 'a page.md')])


def test_an_option_that_this_machine_cannot_have_is_said(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert options.missing_for(dict(precision='fp16')) == 'a GPU'
    assert 'compiler' in options.missing_for(dict(compile=True)) and options.missing_for({}) is None


@pytest.mark.parametrize('arguments, message', [
    (['--image', 'a.nii.gz'], 'go together'), (['--size', '30'], 'at least 64'),
    (['--repeats', '0'], 'at least 1'),
    (['--image', 'a.nii.gz', '--label', 'b.nii.gz', '--size', '64'], 'an image has its own')])
def test_arguments_that_mean_nothing_are_refused(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, 'argv', ['loader.py', *arguments])
    with pytest.raises(SystemExit):
        common.parse_case_args('Time.', 9)
    assert message in capsys.readouterr().err


def test_the_coverage_page(tmp_path, monkeypatch, capsys):
    (tmp_path / 'results').mkdir()
    (tmp_path / 'results/hippocampus').symlink_to(REPO / 'results/hippocampus')
    monkeypatch.setattr(coverage, 'RESULTS', tmp_path / 'results')
    for draws in ('0', '2'):
        monkeypatch.setattr(sys, 'argv', ['coverage.py', '--draws', draws, '--out', str(tmp_path / 'page.md')])
        if draws == '0':
            with pytest.raises(SystemExit):
                coverage.main()
            assert '--draws must be at least 1' in capsys.readouterr().err
        else:
            coverage.main()
    page = (tmp_path / 'page.md').read_text()
    assert '--draws 2\n' in page and '40 cases' in page and 'skewness over cases' in page

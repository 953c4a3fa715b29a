"""Commands as they are printed, read as a shell reads them."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from mmseg_plugins import commands
from mmseg_plugins.commands import REPO, command


@pytest.mark.parametrize('folder', [REPO, REPO / 'tools', Path('My Spine, 1=2')])
def test_a_command_names_the_same_files_in_any_folder(tmp_path, monkeypatch, folder):
    folder = tmp_path / folder
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    own = (Path('a b.py'), ('a.b', [1, 2]), ('c', Path('d e')), '$HOME')
    assert shlex.split(command('tools/train.py', *own))[1:] == [
        str(REPO / 'tools/train.py'), str(folder / 'a b.py'), 'a.b=[1, 2]', f'c={folder / "d e"}', '$HOME']
    assert shlex.split(command('tools/dist_train.sh')) == [str(REPO / 'tools/dist_train.sh')]
    assert shlex.split(command('tools/train.py', modules=[Path('own'), Path('own')]))[:2] == [
        'env', f'PYTHONPATH={folder / "own"}']


def test_a_portable_command_tells_nothing_of_where_the_repository_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command('tools/train.py', REPO / 'configs/a b.py', ('w', REPO / 'x'), Path('own'), portable=True) == (
        f"python tools/train.py 'configs/a b.py' w=x {shlex.quote(str(tmp_path / 'own'))}")


def test_python_is_called_by_name_where_that_is_this_one(tmp_path, monkeypatch):
    (tmp_path / 'python').symlink_to(os.path.realpath(sys.executable))  # as another virtual environment's is
    for path, wanted in ((tmp_path, sys.executable), (Path(sys.executable).parent, 'python')):
        monkeypatch.setenv('PATH', str(path))
        assert shlex.split(command('tools/train.py'))[0] == wanted
    monkeypatch.setattr(commands.shutil, 'which', lambda _: None)
    assert shlex.split(command('tools/train.py'))[0] == sys.executable

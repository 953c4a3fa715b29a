"""Commands as they are printed, read as a shell reads them."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from mmseg_plugins import commands
from mmseg_plugins.commands import REPO, command


@pytest.mark.parametrize('folder, script, own', [
    ('', REPO / 'tools/train.py', 'My Spine/[1], a=b'), (REPO, 'tools/train.py', REPO / 'data/My Spine')])
def test_paths_are_absolute_except_below_the_repository_from_within_it(tmp_path, monkeypatch, folder, script, own):
    monkeypatch.chdir(folder or tmp_path)
    words = shlex.split(command('tools/train.py', Path(own), 'a.b=[1, 2]', '$HOME', 3))
    wanted = 'data/My Spine' if folder else str(tmp_path / own)
    assert words == [words[0], str(script), wanted, 'a.b=[1, 2]', '$HOME', '3']
    assert shlex.split(command('tools/dist_train.sh'))[0].endswith('tools/dist_train.sh')


def test_python_is_called_by_name_where_that_is_this_one(tmp_path, monkeypatch):
    (tmp_path / 'python').symlink_to(os.path.realpath(sys.executable))  # as another virtual environment's is
    for path, wanted in ((tmp_path, sys.executable), (Path(sys.executable).parent, 'python')):
        monkeypatch.setenv('PATH', str(path))
        assert shlex.split(command('tools/train.py'))[0] == wanted
    monkeypatch.setattr(commands.shutil, 'which', lambda _: None)
    assert shlex.split(command('tools/train.py'))[0] == sys.executable

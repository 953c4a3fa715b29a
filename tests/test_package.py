"""The installed package: no everyday names in site-packages, and commands that work from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """Where pip has installed this tree, without what it depends on."""
    listed = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=REPO, capture_output=True)
    if listed.returncode:
        pytest.skip('no checkout of git, whose files could be listed')
    tree, site = tmp_path_factory.mktemp('tree'), tmp_path_factory.mktemp('site')
    for name in listed.stdout.decode().split('\0'):
        if (REPO / name).is_file() and not name.startswith(('tests/', 'docs/')) and '/figures/' not in name:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to(REPO / name)
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-build-isolation', '--target',
                    site, tree], check=True, capture_output=True)
    return site


def call(site: Path, folder: Path, name: str, *arguments: str) -> str:
    result = subprocess.run([sys.executable, site / 'bin' / name, *arguments], cwd=folder, capture_output=True,
                            text=True, env=os.environ | dict(PYTHONPATH=str(site)))
    return result.stdout + result.stderr


def test_site_packages_gains_no_everyday_name(site):
    names = {path.name for path in site.iterdir() if not path.name.endswith('.dist-info')} - {'__pycache__'}
    assert names == {'bin', 'mmseg_plugins', 'mmseg_inflation'}
    within = site / 'mmseg_inflation'
    assert (within / 'configs/_base_/beit.py').is_file() and (within / 'benchmarks/grids/bcv.yaml').is_file()
    assert list(within.glob('results/phantom/search/records/*.json')), 'the search that grids read'


def test_commands_work_from_any_folder(site, tmp_path):
    said = call(site, tmp_path, 'inflate-flops', 'configs/beit_centering_phantom.py')
    assert 'beit_centering_phantom.py: one window of 1 x 5 x 64 x 64' in said
    said = call(site, tmp_path, 'inflate-train', 'configs/beit_centering_phantom.py')
    assert f'data/prepared/phantom/index.json: dataset not prepared; run: {sys.executable}' in said.replace(
        'run: python ', f'run: {sys.executable} ')
    assert f'--out {tmp_path}/data/prepared/phantom' in said and str(REPO) not in said.replace(sys.executable, '')
    said = call(site, tmp_path, 'inflate-grid', '--grid', 'phantom', '--tables', '2a', '--dry-run')
    assert '4 cells, 12 runs' in said and f'{site}/mmseg_inflation/tools/train.py' in said


def test_every_command_leads_to_its_script(site):
    told = (next(site.glob('*.dist-info')) / 'entry_points.txt').read_text()
    commands = dict(line.split(' = ') for line in told.splitlines() if ' = ' in line)
    from mmseg_plugins import cli

    assert {place.removeprefix('mmseg_plugins.cli:') for place in commands.values()} == set(cli.SCRIPTS)
    assert all((site / 'mmseg_inflation' / script).is_file() for script in cli.SCRIPTS.values())


def test_every_package_is_listed(site):
    """setup.cfg lists them one by one."""
    for top, within in (('mmseg_plugins', site), ('benchmarks', site / 'mmseg_inflation')):
        for path in (REPO / top).rglob('*.py'):
            assert (within / path.relative_to(REPO)).is_file(), f'{path.parent} is missing in setup.cfg'

"""A method that is no config: a grid calls its command, scores the label maps that it leaves, and records it."""

import json
import sys
from pathlib import Path

import children
import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import REPO, write_msd
from test_extensions import CALL, THRESHOLD, write_grid

from benchmarks.grid.reader import load_grid
from benchmarks.methods.command import write_cases
from benchmarks.runs.inputs import find_absent
from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.errors import UserError


@pytest.mark.parametrize('split, said', [
    ('train', None), ('trian', "experiment.evaluate='trian'; did you mean 'train'")])
def test_a_command_is_scored_on_the_split_that_configs_are_evaluated_on(tmp_path, split, said):
    write_grid(tmp_path, options={'experiment.evaluate': split})
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    run = children.run([sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--executor',
                        'debug'], tmp_path)
    paths = list((tmp_path / 'work_dirs/grids/mine/records').glob('*.json'))
    if said:
        assert run.returncode == 2 and said in run.stderr and not paths
        return
    record = json.loads(paths[0].read_text())
    assert record['data']['evaluated'] == 'train'
    assert len(record['scores']['cases']) == record['data']['cases']['train'] > 1


def test_a_command_that_fails_is_recorded_with_its_reason(tmp_path):
    write_grid(tmp_path, 'echo torn cable; false {out}')
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    run = children.run([sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--executor',
                        'debug'], tmp_path)
    assert run.returncode == 1
    [path] = (tmp_path / 'work_dirs/grids/mine/records').glob('*.json')
    reason = json.loads(path.read_text())['reason']
    log = tmp_path / reason.split('; ')[1].split(' has ')[0]
    assert 'ended with status 1' in reason and log.read_text() == 'torn cable\n'
    assert reason.endswith('at last: torn cable')


def test_only_label_maps_of_this_attempt_count_and_those_of_others_are_left_to_scoring(tmp_path):
    path = write_grid(tmp_path, f'{THRESHOLD}; test -f second')
    spec = yaml.safe_load(path.read_text())
    spec['configs']['theirs'] = dict(label_maps='elsewhere')
    spec['axes']['encoder'].append('theirs')
    path.write_text(yaml.safe_dump(spec))
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    command = [sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--executor', 'debug']
    assert children.run(command, tmp_path).returncode == 1  # its label maps are there, and it failed
    (tmp_path / 'second').touch()
    (tmp_path / 'threshold.py').write_text('')
    run = children.run([*command, '--retry-failed'], tmp_path)
    assert run.returncode == 1 and '1 runs, 0 finished' in run.stdout
    assert 'no label map' in json.loads(next((tmp_path / 'work_dirs/grids/mine/records').iterdir()).read_text())[
        'reason']
    assert 'tools/score.py scores them' in children.run([*command, '--dry-run'], tmp_path).stdout


def test_data_of_which_little_is_known_are_handed_over(tmp_path):
    prepare_layout(tmp_path / 'layout', count=2, size=16)
    write_cases(tmp_path / 'layout', tmp_path / 'cases', 'val')
    told = json.loads((tmp_path / 'cases/dataset.json').read_text())
    assert told['modality'] is None and told['channel_names'] == {'0': '0', '1': '1', '2': '2'}
    assert {path.name for path in (tmp_path / 'cases/labels').iterdir()} == {'train.nii.gz'}


def test_a_method_that_lacks_what_it_needs_is_left_out(tmp_path, monkeypatch):
    path = write_grid(tmp_path)
    spec = yaml.safe_load(path.read_text())
    spec['configs']['other'] = dict(command=THRESHOLD.replace('.py', '.sh'), needs='there/other')
    spec['axes']['encoder'].append('other')
    path.write_text(yaml.safe_dump(spec))
    grid = load_grid(str(path))
    monkeypatch.chdir(tmp_path)
    grid.absent = find_absent(grid, tmp_path)
    assert grid.absent == dict(other='there/other: not found, so rows of other are left out, whose command '
                                     'needs it')
    assert [cell.encoder for cell in grid.cells_to_run()] == ['threshold']
    Path('there/other').mkdir(parents=True)
    assert not find_absent(grid, tmp_path)


def test_a_command_is_no_part_of_a_trial_and_is_trained_on_the_splits_as_they_are(tmp_path):
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    command = [sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--dry-run']
    write_grid(tmp_path)
    told = children.run([*command, '--max-iters', '2'], tmp_path).stdout
    assert '--max-iters: rows of threshold are left out' in told and '1 cells, 0 runs' in told
    write_grid(tmp_path, options={'experiment.split': 'train:50%'})
    refused = children.run(command, tmp_path)
    assert refused.returncode == 2 and 'a command like threshold is given the splits as they are' in refused.stderr


def test_a_method_goes_on_in_its_own_folder_and_tells_what_it_cost(tmp_path):
    first = f'python {CALL} && echo $(command -v python) >> {{work}}/calls'
    told = '{{"parameters": 7, "settings": {{"epochs": "2"}}}}'
    path = write_grid(tmp_path, f"{first} && test -f {tmp_path}/again && echo '{told}' > {{out}}/method.json")
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    command = [sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--executor', 'debug']
    assert children.run(command, tmp_path).returncode == 1
    (tmp_path / 'again').touch()
    assert children.run([*command, '--retry-failed'], tmp_path).returncode == 0
    out = tmp_path / 'work_dirs/grids/mine'
    python = f'{Path(sys.executable).parent}/python\n'
    assert next(out.glob('runs/*/command/calls')).read_text() == 2 * python
    [record] = (json.loads(path.read_text()) for path in (out / 'records').iterdir())
    seconds = record['cost'].pop('seconds')
    assert record['cost'] == dict(parameters=7, resumed_from=1) and seconds > 0
    assert record['method']['settings'] == dict(epochs='2') and 'epochs 2' in (out / 'report.html').read_text()
    path.write_text(path.read_text().replace('parameters', 'parametres'))
    assert children.run(command, tmp_path).returncode == 1
    reasons = ''.join(json.loads(path.read_text()).get('reason', '') for path in (out / 'records').iterdir())
    assert "method.json: unknown key 'method.parametres'; did you mean 'parameters'" in reasons


def test_a_method_is_given_what_was_prepared_and_no_label_of_what_it_is_tested_on(prepared, msd_raw, tmp_path):
    write_cases(prepared, tmp_path, 'test')
    split = read_index(prepared)['split']
    named = {kind: {path.name.split('.')[0] for path in (tmp_path / kind).iterdir()}
             for kind in ('images', 'labels')}
    assert split['test'] and named['labels'] == {*split['train'], *split['val']}
    write_cases(prepared, tmp_path / 'part', 'train:0/2')  # of what is evaluated, nothing is trained on
    part = json.loads((tmp_path / 'part/split.json').read_text())
    assert {*part['train'], *part['train:0/2']} == {*split['train']} and part['test'] == split['test']
    assert part['train'] and not {*part['train']} & {*part['train:0/2']}
    assert named['images'] == named['labels'] | {*split['test']}
    assert json.loads((tmp_path / 'dataset.json').read_text()) == dict(
        name='hippocampus', modality='MRI', channel_names={'0': 'MRI'},
        labels=dict(background=0, Anterior=1, Posterior=2), file_ending='.nii.gz')
    for kind, raw in (('images', 'imagesTr'), ('labels', 'labelsTr')):
        mine, theirs = (nib.load(folder / f'{split["train"][0]}.nii.gz')
                        for folder in (tmp_path / kind, msd_raw / raw))
        np.testing.assert_array_equal(mine.dataobj, theirs.dataobj)
        np.testing.assert_array_equal(mine.affine, theirs.affine)


@pytest.mark.parametrize('command, message', [
    ('method {case} {out}', "nothing to put for {case}; did you mean 'cases'"),
    ('method {cases} {out} {seed:03d}', '{seed} stands for text'),
    ('method {cases}', 'does not say {out}'), ("awk '{print' {out}", 'write a brace'),
    (7, 'configs.threshold.command cannot be 7')])
def test_a_command_that_cannot_be_filled_in_is_refused(tmp_path, command, message):
    with pytest.raises(UserError, match=message):
        load_grid(str(write_grid(tmp_path, command)))

"""Anybody's label maps, scored against a prepared dataset: what is compared with what, and what is said of it."""

import csv
import os

import nibabel as nib
import numpy as np
import pytest
from conftest import call_tool, write_nifti

from benchmarks import report, results
from benchmarks.rendering.contrasts import compare
from benchmarks.rendering.frame import Measured
from benchmarks.runs.agenda import list_runs
from benchmarks.runs.records import read_records
from mmseg_plugins.datasets import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation.folder import score_folder

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


@pytest.fixture
def maps(prepared, msd_raw, tmp_path):
    """The dataset's own labels, in a folder that one may spoil, and the names of the cases."""
    cases = sorted(read_index(prepared)['split']['train'])
    for case in cases:
        label = np.asarray(nib.load(msd_raw / f'labelsTr/{case}.nii.gz').dataobj)
        write_nifti(tmp_path / 'maps' / f'{case}.nii.gz', label)
    return tmp_path / 'maps', cases


def rewrite(path, change=lambda array: array, affine=AFFINE):
    array = np.asarray(nib.load(path).dataobj)
    write_nifti(path, change(array), affine)


def test_the_datasets_own_labels_are_perfect_and_what_differs_is_said(prepared, maps):
    folder, (turned, bare, *_, last) = maps
    rewrite(folder / f'{turned}.nii.gz', lambda array: array[::-1].transpose(1, 0, 2),
            np.array([[0, 2.0, 0, -34], [-2.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]]))
    rewrite(folder / f'{bare}.nii.gz', affine=np.eye(4))
    (folder / f'{last}.nii.gz').rename(folder / 'other.nii.gz')
    found = score_folder(folder, prepared, 'train')
    notes = '\n'.join(found.notes)
    assert f'{turned}.nii.gz: its axes run' in notes and 'turned' in notes
    assert f'{bare}.nii.gz: its geometry is not the image\'s, spacing by up to 2 mm' in notes
    assert 'left out' in notes and 'other' in notes and len(found.notes) == 3
    assert found.missing == [last]
    figures = found.scores.figures
    assert (figures['dsc'][:-1] == 100).all() and (figures['hd95'][:-1, 1:] == 0).all()
    assert (figures['dsc'][-1] == 0).all() and (figures['nsd'][-1, 1:] == 0).all()  # background too
    assert np.isnan(figures['hd95'][-1]).all() and (figures['dsc_pooled'] < 100).all()


@pytest.mark.parametrize('spoil, message', [
    (lambda path: rewrite(path, lambda array: array[:-1]), 'nothing is resampled'),
    (lambda path: rewrite(path, lambda array: array + 3), 'outside 0..2'),
    (lambda path: rewrite(path, lambda array: array + np.float32(0.5)), 'not integers'),
    (lambda path: path.with_name(path.name.removesuffix('.gz')).write_bytes(b''), 'leave one of them'),
])
def test_a_label_map_that_is_not_of_its_case_is_refused(prepared, maps, spoil, message):
    folder, cases = maps
    spoil(folder / f'{cases[0]}.nii.gz')
    with pytest.raises(UserError, match=message):
        score_folder(folder, prepared, 'train')


def test_a_folder_or_split_that_has_nothing_to_score_is_refused(prepared, tmp_path):
    (tmp_path / 'other.nii.gz').write_bytes(b'')
    with pytest.raises(UserError, match='no label map of .* not other'):
        score_folder(tmp_path, prepared)
    with pytest.raises(UserError, match="--split='trian'; did you mean 'train'"):
        score_folder(tmp_path, prepared, 'trian')


def test_a_folder_becomes_a_record_that_tables_and_comparisons_read(prepared, maps, tmp_path, monkeypatch, capsys):
    folder, cases = maps
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/prepared').symlink_to(prepared.parent)
    monkeypatch.chdir(tmp_path)
    arguments = ['maps', '--dataset', 'hippocampus', '--split', 'train', '--out', 'scored']
    call_tool('score', *arguments, '--method', 'perfect', '--made-by', 'by hand', '--seed', '7')
    for case in cases[1:]:
        rewrite(folder / f'{case}.nii.gz', lambda array: np.minimum(array, 1))
    os.remove(folder / f'{cases[0]}.nii.gz')
    for _ in range(2):  # twice the same is one record
        call_tool('score', *arguments, '--method', 'shells')
    said = capsys.readouterr().out
    assert f'1 of {len(cases)} cases have no label map and count 0: {cases[0]}' in said
    assert 'normalized surface Dice at 3 mm' in said
    records, left_out = read_records(tmp_path / 'scored')
    assert [one['data']['nsd_tolerance'] for one in records] == [[3.0, 3.0]] * 2  # voxels of 2 x 2 x 3 mm
    perfect, shells = records
    assert perfect['seed'] == 7 and perfect['data']['evaluated'] == 'train'
    assert not left_out and shells['method']['missing'] == [cases[0]] and perfect['method']['made_by'] == 'by hand'
    assert not {'cost', 'training', 'config', 'hardware'} & set(perfect)
    frame = results.load('scored')
    assert frame[frame.encoder == 'perfect'].dsc.mean() == 100 and len(frame) == 2 * 3 * len(cases)
    report.render(tmp_path / 'scored')
    rows = list(csv.DictReader(open('scored/tables/table_free.csv')))
    assert {row['encoder']: row['DSC pooled'] == '100.00' for row in rows} == dict(perfect=True, shells=False)
    page = (tmp_path / 'scored/report.html').read_text()
    assert 'made by: by hand' in page and f'counted as 0: {cases[0]}' in page
    grid = report.load_folder(tmp_path / 'scored')
    assert '| Anterior | +' in compare(Measured(records), grid, 'hippocampus-perfect', 'hippocampus-shells')
    with pytest.raises(UserError, match='on train, not on val; name another folder, or --split train'):
        call_tool('score', *arguments, '--method', 'other', '--split', 'val')
    assert not list_runs(grid, tmp_path, None)  # nothing that could be run
    assert perfect['command'].startswith('python tools/score.py ')

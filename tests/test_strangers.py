"""Two strangers with the README alone: one trains on his own dataset and sends a model, the other predicts."""

import re
import shutil
import sys
from pathlib import Path

import children
import nibabel as nib
import numpy as np
from conftest import REPO
from test_docs import commands_of
from test_layouts import write_nnunet

# What the README's reader has otherwise here: no GPU, no network, and no hours.
HERE = {'configs/beit_centering_bcv.py': str(REPO / 'configs/mini_beit_centering_hippocampus.py'),
        'experiment.accumulate=8': 'experiment.source=None experiment.steps=2 experiment.batch=4 '
                                   'experiment.img_size=64 experiment.evaluate=train',
        'work_dirs/knee/iter_25000.pth': 'work_dirs/knee/iter_2.pth'}


def call(folder: Path, script: str, *words) -> str:
    start = [sys.executable, REPO / script] if script.endswith('.py') else [REPO / script]
    result = children.run([*start, *words], folder)
    assert result.returncode == 0, f'{script} {words}: {result.stdout}{result.stderr}'
    return result.stdout


def test_a_model_is_trained_sent_and_used_by_the_readme_alone(tmp_path):
    trainer, user = tmp_path / 'trainer', tmp_path / 'user'
    raw = trainer / 'DIR/Dataset501_Knee'
    raw.mkdir(parents=True)
    write_nnunet(raw)
    shutil.copytree(raw / 'imagesTr', trainer / 'IMAGES')
    readme = re.split(r'^## ', (REPO / 'README.md').read_text(), flags=re.M)
    [section] = [part for part in readme if part.startswith('Your own data')]
    (tmp_path / 'section.md').write_text(section)
    commands = list(commands_of(tmp_path / 'section.md'))
    assert [Path(script).stem for script, _ in commands] == [
        'verify_data', 'prepare_data', 'sources', 'dist_train', 'predict']
    for script, words in commands:
        if script != 'tools/sources.py':
            call(trainer, script, *' '.join(HERE.get(word, word) for word in words).split())
    cases = {path.name for path in (raw / 'labelsTr').iterdir()}
    assert {path.name for path in (trainer / 'LABELS').glob('*.nii.gz')} == cases

    call(trainer, 'tools/export.py', HERE['work_dirs/knee/iter_25000.pth'], 'knee')
    user.mkdir()
    shutil.copytree(trainer / 'knee', user / 'received')
    shutil.copytree(trainer / 'IMAGES', user / 'scans')
    shutil.rmtree(trainer / 'data')  # nobody needs it any more
    card = (user / 'received/README.md').read_text()
    assert 'bone (1), cartilage (2)' in card and 'T1, T2' in card
    call(user, 'tools/predict.py', 'received/model.safetensors', '--input', 'scans', '--output', 'labels')
    for case in cases:
        mine, theirs = (nib.load(folder / case) for folder in (user / 'labels', trainer / 'LABELS'))
        np.testing.assert_array_equal(np.asarray(mine.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_array_equal(mine.affine, nib.load(raw / 'labelsTr' / case).affine)

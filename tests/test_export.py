"""A model that travels: what is exported is the model, loads as its card says, and tells what it is."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REPO, call_tool
from safetensors.torch import load_file

from mmseg_plugins.building import build_model
from mmseg_plugins.carried import carry, read_carried
from mmseg_plugins.datasets import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config
from mmseg_plugins.export import _intensities
from mmseg_plugins.inference import load_model
from mmseg_plugins.models.preprocessor import WindowPreProcessor
from mmseg_plugins.safe_load import load_trained

CONFIG = 'mini_beit_centering_hippocampus'


def make_checkpoint(folder: Path, prepared: Path, config: str = CONFIG, **experiment) -> Path:
    """A checkpoint of random weights, those beside the plain ones too."""
    values = dict(data_root=str(prepared), source=None) | experiment
    cfg = load_config(REPO / f'configs/{config}.py', {f'experiment.{key}': value for key, value in values.items()})
    torch.manual_seed(0)
    model = build_model(cfg)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    path = folder / 'iter_3.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(iter=3, carried=carry(cfg, read_index(prepared)))),
               path)
    return path


def test_the_card_says_what_predictions_are_computed_in(prepared, tmp_path):
    checkpoint = make_checkpoint(tmp_path, prepared, precision='tf32', inference_precision='fp32')
    call_tool('export', checkpoint, tmp_path / 'out')
    assert 'trained in tf32, predicts in tf32' in (tmp_path / 'out/README.md').read_text()


def code_of(card: Path) -> list[str]:
    return re.findall(r'```python\n(.*?)```', card.read_text(), re.DOTALL)


@pytest.mark.parametrize('experiment', [{}, dict(tuning='lora(2)'), dict(inflation='separable', slices=3),
                                        dict(lifting='divided', slices=3), dict(target='all', slices=3)])
def test_what_is_exported_is_the_model(prepared, msd_raw, tmp_path, monkeypatch, experiment):
    checkpoint = make_checkpoint(tmp_path, prepared, **experiment)
    call_tool('export', checkpoint, tmp_path / 'model')
    monkeypatch.chdir(tmp_path / 'model')
    cfg, _ = read_carried(content := load_trained(checkpoint), checkpoint)
    model = load_model(cfg, content, checkpoint, 'cpu')
    windows = torch.randn(2, model.slices, 64, 64)
    wanted, names = model(windows), load_file('model.safetensors')
    assert not [name for name in names if 'down' in name or 'profile' in name]  # layers are plain
    for code in code_of(Path('README.md')):
        found = dict(windows=windows)
        exec(code, found)  # as its reader would
        if 'model' in found:
            torch.testing.assert_close(found['model'](windows), wanted, rtol=0, atol=1e-5)
        else:
            taps, maps = model.backbone.out_indices, model.backbone(windows)
            maps = [maps[taps.index(tap)] for tap in sorted(set(taps))]
            torch.testing.assert_close(list(found['maps']), maps, rtol=0, atol=1e-5)
    assert len(code_of(Path('README.md'))) == (1 if 'lifting' in experiment else 2)

    image = msd_raw / 'imagesTr/case_000.nii.gz'
    call_tool('predict', checkpoint, image, 'a.nii')
    call_tool('predict', 'model.safetensors', image, 'b.nii')
    a, b = (np.asarray(nib.load(path).dataobj) for path in ('a.nii', 'b.nii'))
    assert (a != b).mean() < 1e-3 and a.any()


def test_a_network_of_volumes_runs_under_monai(prepared, tmp_path, monkeypatch):
    checkpoint = make_checkpoint(tmp_path, prepared, 'unet3d_phantom', crop=(16, 32, 32))
    call_tool('export', checkpoint, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = dict(volume=torch.randn(1, 1, 10, 32, 32))  # thinner than a crop, so that dark is put around it
    with torch.no_grad():
        for code in code_of(Path('README.md')):
            exec(code, found)
        dark = torch.full((1, 1, 3, 32, 32), -1.0)
        wanted = found['model'].network(torch.cat([dark, found['volume'], dark], 2))[:, :, 3:-3]
        torch.testing.assert_close(found['logits'], wanted, rtol=0, atol=1e-4)


def test_the_card_says_what_it_is(prepared, tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path, prepared, inference_precision='bf16')
    scores = dict(metrics=dict(dsc=dict(title='DSC case', unit='%')), mean=dict(dsc=81.5), cases=dict(a={}, b={}),
                  labels={'Anterior': dict(dsc=88.25), 'Posterior': dict(dsc=None)})
    (tmp_path / 'scores.json').write_text(json.dumps(scores))
    call_tool('export', checkpoint, tmp_path / 'model', '--scores', tmp_path / 'scores.json')
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / 'model/README.md')
    card = (tmp_path / 'model/README.md').read_text()
    for text in ('Anterior (1), Posterior (2)', 'windows of 5 slices, stride 1', '| Anterior | 88.25 |',
                 '| Posterior | — |', '| **mean** | 81.50 |', 'step 3', 'random weights', '0.5th to the 99.5th',
                 'library_name: mmseg_plugins', 'embed dim 96, depth 4', '# InflatedViT for hippocampus',
                 'trained in fp32, predicts in bf16'):
        assert text in card, text
    for spoilt, message in ((scores | dict(labels={'liver': {}}), 'has the labels liver'),
                            (dict(mean={}), 'no figures of cases')):
        (tmp_path / 'scores.json').write_text(json.dumps(spoilt))
        with pytest.raises(UserError, match=message):
            call_tool('export', checkpoint, tmp_path / 'other', '--scores', tmp_path / 'scores.json')
    with pytest.raises(UserError, match='would overwrite this file'):
        call_tool('export', checkpoint, tmp_path / 'model')
    call_tool('export', checkpoint, tmp_path / 'model', '--overwrite')


def test_the_card_says_how_the_model_itself_scales_intensities():
    ours, theirs = (WindowPreProcessor(**settings) for settings in ({}, dict(clip=(-125, 275), scaled=(0, 1))))
    assert _intensities([-175, 250], ours) == '-175 to 250 become -1 to 1'
    assert _intensities([-175, 250], theirs) == '-125 to 275 become 0 to 1'
    assert _intensities('maximum', ours).startswith('0 to the maximum of each')


def test_what_carries_nothing_is_not_exported(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'bare.pth')
    with pytest.raises(UserError, match='carries no config'):
        call_tool('export', tmp_path / 'bare.pth', tmp_path / 'model')
    assert not (tmp_path / 'model/config.json').exists()


def test_the_docs_python_runs(prepared, msd_raw, tmp_path, monkeypatch):
    """Every block of the page, one after the other, beside an exported model and an image."""
    call_tool('export', make_checkpoint(tmp_path, prepared), tmp_path)
    shutil.copy(msd_raw / 'imagesTr/case_000.nii.gz', tmp_path / 'in.nii.gz')
    monkeypatch.chdir(tmp_path)
    blocks, found = code_of(REPO / 'docs/predict.md'), {}
    assert len(blocks) == 3
    for code in blocks:
        exec(code, found)
    assert Path('out.nii.gz').is_file() and [tuple(each.shape) for each in found['maps']] == [(1, 384, 14, 14)] * 4


def test_modules_of_its_own_are_named_on_the_card(prepared, tmp_path, monkeypatch):
    (tmp_path / 'own_of_this_export.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(checkpoint := make_checkpoint(tmp_path, prepared), weights_only=True)
    content['meta']['carried']['imports'] = ['own_of_this_export']
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match='give --imports own_of_this_export'):
        call_tool('export', checkpoint, tmp_path / 'model')
    call_tool('export', checkpoint, tmp_path / 'model', '--imports', 'own_of_this_export')
    card = (tmp_path / 'model/README.md').read_text()
    assert card.count('out.nii.gz --imports own_of_this_export') == 1 and "path, ['own_of_this_export'])" in card

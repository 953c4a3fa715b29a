"""What users add from outside, each by one module or grid file of theirs: nothing of this project is patched."""

import json
import re
import shlex
import sys
import textwrap
from pathlib import Path

import children
import numpy as np
import timm
import torch
import yaml
from conftest import REPO, documentation, write_msd

from benchmarks import results
from mmseg_plugins.datasets import read_index
from mmseg_plugins.experiment import read_config
from mmseg_plugins.models import InflatedViT

CONFIG = 'configs/mini_beit_centering_hippocampus.py'
METHOD = '''
    import json, sys
    from pathlib import Path
    import nibabel as nib, numpy as np

    cases, split, out, seed = sys.argv[1:]
    for case in json.loads(Path(cases, 'split.json').read_text())[split]:
        image = nib.load(Path(cases, 'images', f'{case}.nii.gz'))
        label = (np.asarray(image.dataobj) > 125).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, image.affine), Path(out, f'{case}.nii.gz'))
    '''
CALL = 'threshold.py {cases} {split} {out} {seed}'
THRESHOLD = f'{shlex.quote(sys.executable)} {CALL}'


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text))


def write_grid(folder: Path, command: str = THRESHOLD, **spec) -> Path:
    """A grid file of a command; the usual one is METHOD's, which lies beside it."""
    write(folder / 'threshold.py', METHOD)
    (folder / 'mine.yaml').write_text(yaml.safe_dump(dict(
        dataset='hippocampus', configs=dict(threshold=dict(command=command)), axes=dict(encoder=['threshold']),
        seeds=[1]) | spec))
    return folder / 'mine.yaml'


def call(folder: Path, script: str, *arguments) -> str:
    """What a script prints that is called in a user's folder."""
    result = children.run([sys.executable, str(REPO / script), *arguments], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_grid(folder: Path, **spec) -> list[dict]:
    """The records of a grid file of the user's, of runs of two steps."""
    (folder / 'mine.yaml').write_text(yaml.safe_dump(dict(
        dataset='hippocampus', configs=dict(beit=CONFIG), source='none', seeds=[1],
        options={'experiment.batch': 2}) | spec))
    call(folder, 'benchmarks/run_grid.py', '--grid', 'mine.yaml', '--max-iters', '2', '--out', 'out',
         '--executor', 'debug')
    return [json.loads(path.read_text()) for path in sorted((folder / 'out/records').glob('*.json'))]


def test_a_dataset_layout(tmp_path):
    write(tmp_path / 'my_knees.py', '''
        from mmseg_plugins.datasets import CATALOGUE, DatasetInfo, RawCase, RawDataset, register_layout

        @register_layout('pairs')
        def find_pairs(info, raw):
            cases = {path.name.split('.')[0]: RawCase((path,), raw / 'masks' / path.name)
                     for path in sorted(raw.glob('scans/*.nii.gz'))}
            names = list(cases)
            return RawDataset(info, cases, dict(train=names[:-2], test=names[-2:]))

        CATALOGUE['knee'] = DatasetInfo('pairs', 'Knee', 'MRI', origin='our hospital', licence='none',
                                        channels=['T1'], labels=['background', 'bone', 'marrow'])
        ''')
    raw = write_msd(tmp_path / 'data/Knee', cases=7)
    (raw / 'dataset.json').unlink()
    (raw / 'imagesTr').rename(raw / 'scans')
    (raw / 'labelsTr').rename(raw / 'masks')
    call(tmp_path, 'tools/prepare_data.py', 'knee', '--imports', 'my_knees')
    index = read_index(tmp_path / 'data/prepared/knee')
    assert index['labels'] == ['background', 'bone', 'marrow'] and index['channel_names'] == ['T1']
    assert index['split'] == dict(train=[f'case_00{i}' for i in range(5)], test=['case_005', 'case_006'])
    [record] = run_grid(tmp_path, dataset='knee', imports=['my_knees'], axes=dict(slices=[3]))
    assert record['scores']['labels'] == index['labels'] and record['scores']['cases'] == ['case_005', 'case_006']


def test_a_pre_training_objective(tmp_path):
    write(tmp_path / 'my_objectives.py', '''
        from mmseg.registry import MODELS
        from torch import nn

        from mmseg_plugins.models import Objective

        @MODELS.register_module()
        class MeanColour(Objective):
            def __init__(self, **settings):
                super().__init__(**settings)
                self.guess = nn.Linear(self.backbone.model.num_features, self.backbone.channels)

            def loss(self, images):
                tokens = self.backbone.model.forward_features(images)
                return dict(loss=(self.guess(tokens.mean(1)) - images.mean((2, 3))).square().mean())
        ''')
    write(tmp_path / 'mean_colour.py', f'''
        _base_ = {str(REPO / 'configs/_base_/mini_dino.py')!r}
        custom_imports = dict(imports=['mmseg_plugins', 'my_objectives'])
        experiment = dict(data_root='data/prepared/hippocampus', steps=2, batch=2)
        model = dict(_delete_=True, type='MeanColour', backbone=_base_.model.backbone,
                     data_preprocessor=dict(type='WindowPreProcessor'))
        ''')
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    [record] = run_grid(tmp_path, source='colour', axes=dict(slices=[3]), sources=dict(colour=dict(
        file='colour.pth', encoder='beit', made_by=str(tmp_path / 'mean_colour.py'))))
    load = record['load']
    assert load['file'] == 'colour.pth' and load['inflated'] == ['patch_embed.proj.weight'] and not load['missing']
    assert set(json.loads((tmp_path / 'weights/colour.json').read_text())['metrics']) == {'loss'}
    call(tmp_path, 'tools/pretrain.py', 'mean_colour.py', '--out', 'alone.pth')
    made, alone = (torch.load(tmp_path / path, weights_only=True)['model'] for path in ('weights/colour.pth',
                                                                                       'alone.pth'))
    assert all(torch.equal(made[key], alone[key]) for key in made)


def test_a_loss_and_mmsegmentations_own(tmp_path):
    write(tmp_path / 'my_losses.py', '''
        from mmseg.registry import MODELS
        from torch import nn

        @MODELS.register_module()
        class Surprise(nn.Module):
            loss_name = 'loss_surprise'

            def forward(self, logits, label, weight=None, ignore_index=None):
                return -logits.log_softmax(1).gather(1, label[:, None]).mean()
        ''')
    losses = {}
    for loss in ('Surprise', 'CrossEntropyLoss'):
        write(tmp_path / 'config.py', f'''
            _base_ = {str(REPO / CONFIG)!r}
            model = dict(decode_head=dict(loss_decode=dict(_delete_=True, type={loss!r})))
            ''')
        write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
        [record] = run_grid(tmp_path, imports=['my_losses'], axes=dict(slices=[3], target=['all']),
                            configs=dict(beit=str(tmp_path / 'config.py')))
        losses[loss] = record['training']['curve']
    assert losses['Surprise'] == losses['CrossEntropyLoss']


def test_a_model(tmp_path):
    [module], [grid] = (re.findall(rf'```{kind}\n# my_model.*?\n(.*?)```', documentation(), re.S)
                        for kind in ('python', 'yaml'))
    write(tmp_path / 'my_model.py', module)
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=10)
    [record] = run_grid(tmp_path, **yaml.safe_load(grid) | dict(
        dataset='hippocampus', axes=dict(encoder=['slicenet'], slices=[5]), seeds=[1]))
    assert record['state'] == 'done' and record['source'] is None and len(record['search']['tried']) == 2
    widths = [(1, 16), (16, 32), (32, 64), (64, 128)]
    kernels = [27 * after * (before + after) for before, after in widths]
    biases_and_norms = sum(2 * 3 * after for _, after in widths)
    assert record['cost']['encoder_parameters'] == sum(kernels) + biases_and_norms
    assert record['cost']['encoder_flops'] == sum(  # each stage halves both sides of the plane
        2 * weights * 5 * (64 // 2**stage)**2 for stage, weights in enumerate(kernels, 1))
    assert 'slicenet' in (tmp_path / 'out/tables/table_search.md').read_text()


def test_a_lifting(tmp_path):
    [module], [grid] = (re.findall(rf'```{kind}\n# my_lifting.*?\n(.*?)```', documentation(), re.S)
                        for kind in ('python', 'yaml'))
    assert len(module.splitlines()) <= 60
    write(tmp_path / 'my_lifting.py', module)
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=10)
    lifted, plain = sorted(run_grid(tmp_path, **yaml.safe_load(grid) | dict(dataset='hippocampus', seeds=[1])),
                           key=lambda record: record['cell']['lifting'], reverse=True)
    assert [each['cell']['lifting'] for each in (lifted, plain)] == ['mean_of_slices', 'kernel']
    assert lifted['state'] == plain['state'] == 'done'
    assert lifted['cost']['encoder_flops'] > 4 * plain['cost']['encoder_flops']  # five planes, and their mean
    flat = timm.create_model('vit_tiny_patch16_224', num_classes=0)
    torch.save(flat.state_dict(), tmp_path / 'flat.pth')
    told = call(tmp_path, 'tools/inflate.py', 'flat.pth', '--encoder', 'timm/vit_tiny_patch16_224',
                '--lifting', 'mean_of_slices', '--imports', 'my_lifting')
    assert 'new parameters: 444,672' in told  # 12 layers of 192 x 192 and biases
    found = re.findall(r'random windows(.*?): largest difference (\S+)', told)
    assert [windows for windows, _ in found] == ['', ' of 1 slice', ' of 2 slices']
    assert all(float(difference) < 1e-5 for _, difference in found)


def test_a_table(tmp_path):
    write(tmp_path / 'my_table.py', '''
        from benchmarks.grid.tables import Table, register_table

        register_table(Table('looks', dict(one=dict(slices=1), three=dict(slices=3)), 'How far it looks',
                             against='three', figure='table_looks'))
        ''')
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    run_grid(tmp_path, imports=['my_table'], tables=['looks'])
    table = (tmp_path / 'out/tables/table_looks.md').read_text().splitlines()
    assert [line.split(' | ')[0] for line in table] == ['| Method', '| ---', '| one', '| three']
    assert 'three - one' in (tmp_path / 'out/tables/table_contrasts.csv').read_text()
    assert (tmp_path / 'out/figures/table_looks.png').is_file()


def test_a_value_of_an_axis(tmp_path):
    write(tmp_path / 'my_methods.py', '''
        from mmseg_plugins import register_inflation

        @register_inflation('first')
        def first(gray, slices, channels):
            kernel = gray.new_zeros(len(gray), channels, slices, *gray.shape[1:])
            kernel[:, :, 0] = gray[:, None] / channels
            return kernel
        ''')
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    backbone = dict(read_config(REPO / CONFIG).model.backbone)
    del backbone['type']
    (tmp_path / 'weights').mkdir()
    torch.save(InflatedViT(**backbone, slices=1, channels=3, img_size=64).model.state_dict(),
               tmp_path / 'weights/flat.pth')
    [record] = run_grid(tmp_path, imports=['my_methods'], source='flat',
                        sources=dict(flat=dict(file='flat.pth', encoder='beit')),
                        axes=dict(inflation=['first'], slices=[3], target=['all']))
    assert record['state'] == 'done' and record['load']['inflated'] == ['patch_embed.proj.weight']
    assert record['cell']['inflation'] == 'first' and 'my_methods' in record['command']


def test_a_metric(tmp_path):
    write(tmp_path / 'my_metrics.py', '''
        import numpy as np
        from mmseg_plugins import register_metric

        @register_metric('excess', unit='ml', higher_is_better=False)
        def excess(pair):
            return (pair.confusion.sum(0) - pair.confusion.sum(1)) * np.prod(pair.spacing) / 1000
        ''')
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    records = run_grid(tmp_path, imports=['my_metrics'], axes=dict(slices=[1, 3]))
    assert [np.shape(record['scores']['figures']['excess']) for record in records] == [(1, 3)] * 2
    out = tmp_path / 'out'
    assert 'excess (ml)' in (out / 'tables/table_free.csv').read_text().splitlines()[0]
    assert results.load(out).excess.notna().all()
    cells = [record['run'].split('-seed')[0] for record in records]
    printed = call(tmp_path, 'benchmarks/report.py', 'out', '--compare', *cells)
    assert 'excess (ml), lower is better' in printed and '| Organ | excess (ml) | 95 % |' in printed


def test_a_command_as_method(tmp_path):
    write_grid(tmp_path)
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    grid = 'benchmarks/run_grid.py', '--grid', 'mine.yaml', '--out', 'out', '--workers', '1'
    call(tmp_path, *grid)
    assert '1 finished, 0 to do' in call(tmp_path, *grid)
    [path] = (tmp_path / 'out/records').glob('*.json')
    record = json.loads(path.read_text())
    assert record['command'].endswith('threshold.py {cases} {split} {out} {seed}')
    assert not record['method']['missing'] and record['hardware'] and [*record['cost']] == ['seconds']
    assert record['cell']['slices'] is None
    frame = results.load(tmp_path / 'out')
    assert frame[frame.label_id == 1].dsc.between(50, 99).all() and frame[frame.label_id == 2].dsc.eq(0).all()
    assert 'threshold' in (tmp_path / 'out/report.html').read_text()


def test_an_executor(tmp_path):
    [module] = re.findall(r'```python\n# my_pool.py\n(.*?)```', documentation(), re.S)
    write(tmp_path / 'my_pool.py', module)
    write_grid(tmp_path, seeds=[1, 2], imports=['my_pool'])
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    grid = 'benchmarks/run_grid.py', '--grid', 'mine.yaml', '--out', 'out', '--executor'
    misspelt = children.run([sys.executable, str(REPO / grid[0]), *grid[1:], 'pol'], tmp_path)
    assert misspelt.returncode == 2 and "--executor pol: not registered; did you mean 'pool'" in misspelt.stderr
    assert '2 to do with Pool' in call(tmp_path, *grid, 'pool')
    records = [json.loads(path.read_text()) for path in (tmp_path / 'out/records').glob('*.json')]
    assert [record['state'] for record in records] == ['done', 'done']

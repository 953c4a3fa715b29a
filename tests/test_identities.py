"""The committed runs are the runs that their grids name: what is recorded is neither repeated nor superseded."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPO

from benchmarks.grid.reader import load_grid
from benchmarks.runs import agenda
from benchmarks.runs.search import choose, each_once, list_search
from mmseg_plugins.experiment import read_config
from mmseg_plugins.sources import Source

RESULTS = REPO / 'results'
# agenda.data_digest of each as it is prepared, on parts of these splits
DATA = {('phantom',): 'd159077d', ('hippocampus',): 'b0fc276c', ('acdc',): '555d872f',
        ('hippocampus', 'train:25%'): '2af1c504', ('hippocampus', 'train:50%'): '9e3b1db4',
        ('hippocampus', 'val:25%'): '7be90d26',
        ('hippocampus', 'train:25%:-0/4', 'train:25%:0/4'): 'e1a91651',
        ('hippocampus', 'train:50%:-0/4', 'train:50%:0/4'): '247c2ecd',
        **{('chaos', f'all:-{fold}/5', f'all:{fold}/5'): digest for fold, digest in enumerate(
            ('280f4603', '7c2b7671', 'a80a940d', '91750034', '9233da08'))},
        **{('chaos', f'all:-{fold}/5:-0/4', f'all:-{fold}/5:0/4'): digest for fold, digest in enumerate(
            ('8aef360d', '34e9bbf7', '6bf31e35', '9c530458', '6a739547'))},
        **{('chaos', f'all:{fold}/5'): digest for fold, digest in enumerate(
            ('67cbd311', 'e81e3c39', '46756cd3', 'a5fd51dc', 'a479e823'))}}
PHOTOGRAPHS = 'f28c306beaa6'  # split_hash of Caltech-101 as it is prepared
# sha256 of each, as `tools/sources.py --get` writes it
WEIGHTS = {'dinov2_vits14': 'dc75e3ddfb5c5c7ccd76eb1cdf4deda601bece43fdfdf8ac2a64fea6c64eb0b7'}

EARLIER: tuple[str, ...] = ()  # of an earlier recipe, to be run again
NAMES = sorted(path.parent.name for path in RESULTS.glob('*/grid.yaml'))
UNFINISHED = sorted(RESULTS.glob('unfinished/*/grid.yaml'))  # goes on when its grid is called again


@pytest.fixture
def prepared_elsewhere(monkeypatch):
    """What runs are known by, without the data and the weights that they are of."""
    made = agenda._source_digest
    monkeypatch.setattr(agenda, '_prepared_digest', lambda dataset, *splits, cfg=None: DATA[
        (dataset, *(split for split in splits if split and ':' in split))])
    monkeypatch.setattr(agenda, '_source_digest', lambda name, *args: WEIGHTS.get(name) or made(name, *args))
    monkeypatch.setattr(agenda, 'is_prepared', lambda name: name == 'photographs')
    monkeypatch.setattr(agenda, 'read_index', lambda folder: dict(split_hash=PHOTOGRAPHS))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.xfail(strict=True)] * (name in EARLIER))
                                  for name in NAMES])
def test_committed_records_are_of_their_grids_runs(name, prepared_elsewhere):
    grid = load_grid(str(RESULTS / name / 'grid.yaml'))
    search = list_search(grid, Path('weights'), None)
    choices = choose(grid, search, [RESULTS / name / 'search'])
    assert set(choices) == set(search)
    runs = {run.name for run in agenda.list_runs(grid, Path('weights'), None, choices)}
    assert runs == recorded(RESULTS / name)


def recorded(folder: Path) -> set[str]:
    return {path.stem for path in (folder / 'records').glob('*.json')}


@pytest.mark.parametrize('folder', [path.parent for path in UNFINISHED], ids=lambda folder: folder.name)
def test_records_of_an_unfinished_grid_are_of_its_runs(folder, prepared_elsewhere):
    grid = load_grid(folder.name)
    search = list_search(grid, Path('weights'), None)
    assert {run.name for run in each_once(search)} >= recorded(folder / 'search')
    choices = choose(grid, search, [folder / 'search'])
    runs = [run for run in agenda.list_runs(grid, Path('weights'), None, choices) if run.search]
    assert {run.name for run in runs} >= recorded(folder)


def test_a_source_that_a_grid_makes_is_known_by_its_data(tmp_path, monkeypatch):
    config, found = tmp_path / 'mine.py', []
    config.write_text(f"_base_ = {str(REPO / 'configs/mini_beit_layout.py')!r}\n"
                      "experiment = dict(data_root='data/prepared/knee')\n")
    grid = SimpleNamespace(sources=dict(mine=Source('beit', 'mine.pth', *[''] * 5, made_by=str(config))))
    monkeypatch.setattr(agenda, 'is_prepared', lambda name: name == 'knee')
    for cases in ('of one week', 'of two weeks'):
        monkeypatch.setattr(agenda, 'read_index', lambda folder, cases=cases: dict(split_hash=cases))
        found.append(agenda._source_digest('mine', grid, tmp_path))
    assert found[0] != found[1]


def test_a_run_is_known_by_what_determines_its_result():
    def known(**options) -> dict:
        cfg = read_config(REPO / 'configs/beit_centering_phantom.py')
        cfg.merge_from_dict(options)
        return agenda.determinants(cfg)

    plain = known()
    for place, value in {'train_dataloader.num_workers': 3, 'train_dataloader.pin_memory': True,
                         'log_level': 'ERROR', 'default_hooks.logger.interval': 1,
                         'experiment.checkpoint_interval': 7,
                         'experiment.activation_checkpointing': True, 'experiment.compile': False,
                         'experiment.data_root': 'elsewhere/phantom', 'experiment.source': 'other.pth',
                         'val_dataloader.batch_size': 2}.items():
        assert known(**{place: value}) == plain, place
    for place, value in {'experiment.lr': 0.5, 'train_dataloader.sampler.seed': 7,
                         'model.decode_head.act_cfg': None,
                         'train_dataloader.collate_fn': dict(type='mine'), 'optim_wrapper.type': 'MyWrapper',
                         'default_hooks.checkpoint_ema': dict(type='EMAHook'),
                         'default_hooks.param_scheduler': None,
                         'experiment.compile': True, 'experiment.precision': 'bf16',
                         'experiment.inference_precision': 'bf16',
                         'experiment.accumulate': 2, 'experiment.seed': 7, 'model.backbone.drop_path_rate': 0.3,
                         'optim_wrapper.clip_grad.max_norm': 2.0, 'custom_hooks': [dict(type='EMAHook')],
                         'default_hooks.mine': dict(type='EMAHook'), 'load_from': 'x.pth',
                         'train_dataloader.dataset.pipeline.1.zoom': (0.5, 2.0)}.items():
        assert known(**{place: value}) != plain, place


def test_a_users_module_counts_with_what_it_imports_from_beside_itself(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'outer_part.py').write_text('import json\n\nimport helper_part\n')
    helper = tmp_path / 'helper_part.py'
    helper.write_text('RATE = 1\n')
    cfg = read_config(REPO / 'configs/beit_centering_phantom.py', {'custom_imports.imports': ['outer_part']})
    before = agenda.determinants(cfg)
    assert {'outer_part.py', 'helper_part.py'} <= set(before) and 'json.py' not in before
    helper.write_text('RATE = 2.5\n')
    assert agenda.determinants(cfg) != before

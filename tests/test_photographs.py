"""Photographs in class folders: a folder and a .tar alike, hostile ones too, and what is pre-trained on them."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO, call_tool
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from benchmarks.grid.reader import load_grid
from benchmarks.runs.inputs import find_absent
from mmseg_plugins.datasets import photographs, read_index
from mmseg_plugins.datasets.photographs import list_photographs, prepare_photographs, read_photograph
from mmseg_plugins.datasets.store import Store
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation import ImageAccuracy
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.models import InflatedViT
from mmseg_plugins.pretraining import pretrain

CLASSES = ['ant', 'bee', 'cat']
SMALL = {'experiment.img_size': 32, 'experiment.batch': 8, 'experiment.warmup': 1, 'experiment.steps': 2}


def write_photographs(root, each=12):
    """Of every class as many: its colour with noise, some in grey, one below a folder of its own."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for i in range(each):
            pixels = rng.integers(0, 60, (40, 50, 3), dtype=np.uint8)
            pixels[..., number] += 150
            path = root / name / ('deeper' if i == 3 else '') / f'{i:04d}.{"png" if i % 2 else "jpg"}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).convert('L' if i == 5 else 'RGB').save(path)
    return root


def write_tar(folder, path):
    with tarfile.open(path, 'w') as tar:
        tar.add(folder, 'photographs')
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp('raw') / 'set')


@pytest.fixture(scope='module')
def stored(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared') / 'photographs'
    assert prepare_photographs(folder, out, size=32, workers=1) == []
    return out


def test_a_folder_and_its_tar_are_stored_alike_and_each_pixel_has_its_images_class(folder, stored, tmp_path):
    prepare_photographs(write_tar(folder, tmp_path / 'set.tar'), tmp_path / 'of_tar', size=32, workers=1)
    index, other = read_index(stored), read_index(tmp_path / 'of_tar')
    assert index['labels'] == ['background', *CLASSES] and index['split_hash'] == other['split_hash']
    assert index['split'] == dict(train=['train-0000'], val=['val-0000'])
    cases, store = index['cases'], Store(stored)
    assert sum(entry['shape'][0] for entry in cases.values()) == 36
    for case, entry in cases.items():
        assert entry['shape'][1:] == [3, 32, 32]
        for z in range(entry['shape'][0]):
            image, label = np.asarray(store.window(case, [z])), np.asarray(store.label(case, [z]))
            means = image.mean((1, 2))
            assert len(np.unique(label)) == 1
            assert np.ptp(means) < 3 or means.argmax() + 1 == label.flat[0]  # grey tells no class here


def test_what_did_not_change_is_not_read_again_and_what_is_no_image_is_named(folder, tmp_path):
    raw, out = write_photographs(tmp_path / 'set'), tmp_path / 'out'
    (raw / 'bee/0007.png').write_bytes(b'\x89PNG torn')
    (raw / 'bee/notes.txt').write_text('passed over')
    (raw / 'cat/._0001.jpg').write_bytes(b'what macOS leaves beside files')
    [line] = prepare_photographs(raw, out, size=16, workers=1)
    assert "'bee/0007.png' is no image that can be read" in line
    stored = out / 'cases/train-0000/image.b2nd'
    before = stored.stat().st_mtime_ns
    assert prepare_photographs(raw, out, size=16, workers=1) == [line] and stored.stat().st_mtime_ns == before
    (raw / 'bee/0007.png').unlink()
    assert prepare_photographs(raw, out, size=16, workers=1) == [] and stored.stat().st_mtime_ns != before


def test_the_same_photograph_twice_is_on_one_side(tmp_path):
    raw = write_photographs(tmp_path / 'set', each=8)
    for path in list(raw.rglob('*.*')):
        path.with_stem(f'{path.stem}_again').write_bytes(path.read_bytes())
    prepare_photographs(raw, tmp_path / 'out', size=16, workers=1)
    store, index = Store(tmp_path / 'out'), read_index(tmp_path / 'out')
    sides = {part: {np.asarray(store.window(case, [z])).tobytes() for case in cases
                    for z in range(index['cases'][case]['shape'][0])} for part, cases in index['split'].items()}
    assert not sides['train'] & sides['val'] and len(sides['train'] | sides['val']) == 24


def test_of_a_tar_nothing_is_unpacked_and_no_link_is_followed(folder, tmp_path):
    secret = write_photographs(tmp_path / 'secret', each=1) / 'ant/0000.jpg'
    path = tmp_path / 'work/set.tar'
    path.parent.mkdir()
    with tarfile.open(path, 'w') as tar:
        tar.add(folder, '.')
        for name, kind in (('ant/link.jpg', tarfile.SYMTYPE), ('ant/hard.jpg', tarfile.LNKTYPE),
                           ('ant/pipe.jpg', tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        escaping = tarfile.TarInfo('./ant/../../../escaped.jpg')
        escaping.size = secret.stat().st_size
        tar.addfile(escaping, io.BytesIO(secret.read_bytes()))
    assert len(list_photographs(path)[1]) == 36
    assert prepare_photographs(path, tmp_path / 'out', size=16, workers=1) == []
    assert not list(tmp_path.rglob('escaped*')) and {each.name for each in path.parent.iterdir()} == {'set.tar'}


@pytest.mark.parametrize('spoil, message', [
    (lambda raw: raw.rename(raw.parent / 'gone'), 'not found; get caltech101_64.tar'),
    (lambda raw: (raw / 'loose.png').write_bytes(b''), 'loose.png.* in no class folder'),
    (lambda raw: [(raw / name).rename(raw / part) for name, part in zip(CLASSES, ['train', 'val', 'test'],
                                                                         strict=True)],
     'are parts, not classes'),
    (lambda raw: [path.rename(path.with_suffix('.doc')) for path in [*raw.rglob('*.*')]], 'images of 0 classes')])
def test_what_is_not_class_folders_is_refused_in_one_line(tmp_path, spoil, message):
    raw = write_photographs(tmp_path / 'set', each=2)
    spoil(raw)
    with pytest.raises(UserError, match=message) as refused:
        prepare_photographs(raw, tmp_path / 'out')
    assert '\n' not in str(refused.value) and not (tmp_path / 'out').exists()


def test_a_torn_tar_is_refused(folder, tmp_path):
    path = write_tar(folder, tmp_path / 'set.tar')
    path.write_bytes(path.read_bytes()[:20_700])
    with pytest.raises(UserError, match='no whole .tar'):
        prepare_photographs(path, tmp_path / 'out')


def test_a_photograph_stands_upright_with_its_centre_kept():
    pixels = np.zeros((60, 20, 3), np.uint8)
    pixels[:20, :, 0] = 250
    pixels[40:, :, 2] = 250  # red above, blue below, both cut off
    pixels[20:40, :10] = 100
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(content, 'PNG', exif=exif)
    image = read_photograph(content.getvalue(), 20)
    assert image.shape == (3, 20, 20) and image[0].max() <= 110
    assert image[:, 2, 10].tolist() == [100] * 3 and image[:, 17, 10].tolist() == [0] * 3
    deep = np.arange(0, 40_000, 100, dtype=np.uint16).reshape(20, 20)
    Image.fromarray(deep).save(content := io.BytesIO(), 'PNG')
    with pytest.raises(ValueError, match='convert it to 8 bits a channel'):  # else white from 255 on
        read_photograph(content.getvalue(), 20)


def build(data, name, work_dir, **options):
    cfg = load_config(REPO / 'configs' / f'{name}.py', SMALL | {'experiment.data_root': str(data)} | options)
    prepare_for_device(cfg, 'none')
    cfg.work_dir, cfg.experiment_name = str(work_dir), f'{work_dir}'.replace('/', '-')
    return cfg


def test_the_loss_is_that_of_the_images_classes_whatever_augmentation_brings_in(stored, tmp_path):
    cfg = build(stored, 'mini_beit_photographs', tmp_path)
    init_default_scope('mmseg')
    head = MODELS.build(cfg.model).decode_head.eval()
    assert head.num_classes == 4
    features, label = torch.randn(2, 96, 4, 4), torch.zeros(2, 1, 32, 32, dtype=torch.long)
    label[0, :, 5:], label[1] = 3, 1  # the first was moved
    samples = [type('Sample', (), dict(gt_sem_seg=type('Plane', (), dict(data=plane))))() for plane in label]
    losses = head.loss([features], samples, {})
    logits = head.cls_seg(head.norm(features.mean((2, 3)))[..., None, None])[..., 0, 0]
    torch.testing.assert_close(losses['loss_ce'], torch.nn.functional.cross_entropy(logits, torch.tensor([3, 1])))


def test_accuracy_is_of_all_images_and_of_classes():
    metric = ImageAccuracy()
    pairs = [(1, 1), (1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (300, 1)]
    metric.process({}, [dict(gt_sem_seg=dict(data=torch.full((1, 2, 2), label, dtype=torch.int32)),
                             pred_sem_seg=dict(data=torch.full((1, 2, 2), found))) for label, found in pairs])
    found = metric.evaluate(len(pairs))
    assert found['accuracy'] == pytest.approx(400 / 7)
    assert found['mean_class_accuracy'] == pytest.approx((75 + 50 + 0) / 3)


@pytest.mark.parametrize('name', ['mini_beit_photographs', 'mini_swin_photographs', 'mini_vit_photographs',
                                  'mini_beit_dino_photographs', 'mini_vit_dino_photographs'])
def test_every_encoder_is_pretrained_by_both_objectives(stored, tmp_path, name):
    options = {'model.crops.local_size': 16} if name == 'mini_vit_dino_photographs' else {}
    metrics = pretrain(build(stored, name, tmp_path / 'work', **options), tmp_path / 'encoder.pth')
    assert set(metrics) >= ({'teacher_information'} if 'dino' in name else {'accuracy', 'mean_class_accuracy'})
    if 'vit' in name:
        cfg = build(stored, 'dino_centering_phantom', tmp_path)
        settings = {key: value for key, value in cfg.model.backbone.items() if key != 'type'}
        encoder = InflatedViT(**settings | dict(source=str(tmp_path / 'encoder.pth'), channels=1))
        encoder.init_weights()
        assert not encoder.load_report.missing and not encoder.load_report.dropped


def test_classes_are_learnt(stored, tmp_path):
    steps = {'experiment.steps': 40, 'experiment.warmup': 4, 'experiment.batch': 16}
    metrics = pretrain(build(stored, 'mini_vit_photographs', tmp_path / 'work', **steps), tmp_path / 'encoder.pth')
    assert metrics['accuracy'] > 60  # of three


def test_without_photographs_a_grids_rows_of_them_are_left_out_and_the_others_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = load_grid('phantom-sources')
    every = grid.cells_to_run()
    grid.absent = find_absent(grid, Path('data'))
    assert {cell.source for cell in every} - {cell.source for cell in grid.cells_to_run()} == set(grid.absent)
    assert len(grid.absent) == 5
    [line] = set(grid.absent.values())
    assert line.startswith(f'data/{photographs.ARCHIVE}: not found, so rows that start from dino_photographs, ')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / photographs.ARCHIVE).touch()
    assert find_absent(grid, Path('data')) == {}


def test_the_command_prepares_and_says_what_it_could_not_read(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call_tool('prepare_data', 'photographs', '--raw', folder, '--size', 24)
    assert capsys.readouterr().out.splitlines()[-1] == 'data/prepared/photographs'
    assert read_index('data/prepared/photographs')['input_size'] == 24
    for wrong, message in ((['phantom', '--size', '24'], '--size is for photographs'),
                           (['photographs', '--uncompressed'], '--uncompressed: not for photographs')):
        with pytest.raises(UserError, match=message):
            call_tool('prepare_data', *wrong)

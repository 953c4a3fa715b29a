"""The rate of every step, and what a resumed training goes on with."""

import shutil
import signal
from copy import deepcopy

import pytest
import torch
from children import CONFIG, options
from conftest import REPO
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import CosineAnnealingLR, LinearLR, PolyLR, build_optim_wrapper

from mmseg_plugins.building import build_runner
from mmseg_plugins.errors import Stopped, UserError
from mmseg_plugins.experiment import load_config, prepare_for_device, read_config
from mmseg_plugins.schedule import WarmupPolyLR, rate_factor
from mmseg_plugins.work_dir import drop_checkpoints, keep_weights

BEGUN = dict(batch=4, img_size=32, lr=1e-3, steps=3, warmup=1, checkpoint_interval=1)


def rates(schedulers, optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.fixture
def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


@pytest.mark.parametrize('steps, warmup, power', [(20, 5, 1), (20, 0, 1), (8, 6, 1), (20, 5, 0.9), (20, 0, 0.9),
                                                   (20, 5, 'cosine'), (20, 0, 'cosine')])
def test_the_rates_are_mmengines_own_schedulers_in_turn(optimizer, steps, warmup, power):
    found = rates([WarmupPolyLR(optimizer, steps, warmup, power)], optimizer, steps)
    plain = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    turns = [LinearLR(plain, 1 / (warmup + 1), by_epoch=False, begin=0, end=warmup)] if warmup else []
    decay = dict(eta_min=0, by_epoch=False, begin=warmup, end=steps)
    turns.append(CosineAnnealingLR(plain, T_max=steps - warmup - 1, **decay) if power == 'cosine' else
                 PolyLR(plain, power=power, **decay))  # both at 0 in the last step
    expected = rates(turns, plain, steps)
    assert found == pytest.approx([0.5 * rate_factor(step, steps, warmup, power) for step in range(steps)])
    assert found[:warmup] == pytest.approx(expected[:warmup])
    assert found[-1] == 0 and found[warmup:] == pytest.approx(expected[warmup:], abs=1e-12)


@pytest.mark.parametrize('warmup', [0, 1, 2, 4])
def test_after_the_warm_up_the_rate_is_the_one_that_is_asked_for(optimizer, warmup):
    found = rates([WarmupPolyLR(optimizer, 6, warmup)], optimizer, 6)
    assert found[warmup] == 0.5 == pytest.approx(max(found)) and found[:warmup] == sorted(found[:warmup])


class Kernel(Hook):
    """The patch embedding's kernel (E, C * S, P, P) before training and after every step."""

    def __init__(self):
        self.found = []

    def before_train(self, runner) -> None:
        self.found.append(runner.model.backbone.model.patch_embed.proj.weight.detach().clone())

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        self.before_train(runner)


class Interrupt(Hook):
    """A signal in the third step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 2:
            signal.raise_signal(signal.SIGTERM)


class Rates(Hook):
    """The rate of every step."""

    def __init__(self):
        self.found = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.found += runner.optim_wrapper.get_lr()['lr'][:1]


def train(prepared, work, resume: bool, config=CONFIG, more=None, hooks=(), **changes) -> list[float]:
    cfg = load_config(config, options(prepared, **BEGUN | changes) | {
        'model.backbone.sizes.depth': 1, 'model.backbone.out_indices': (0,) * 4} | (more or {}))
    prepare_for_device(cfg, 'none')
    cfg.work_dir, cfg.resume = str(work), resume
    cfg.experiment_name = f'{work}'.replace('/', '-')  # by mmengine's own, two of one second would share histories
    training, rates = build_runner(cfg), Rates()
    for hook in (rates, *hooks):
        training.register_hook(hook)
    training.train()
    return rates.found


@pytest.fixture(scope='module')
def begun(prepared, tmp_path_factory):
    """A finished training of three steps."""
    work = tmp_path_factory.mktemp('begun') / 'work'
    assert len(train(prepared, work, False)) == 3
    return work


@pytest.mark.parametrize('changes', [
    dict(steps=6), dict(steps=6, warmup=5), dict(steps=5, lr=4e-3, precision='bf16')])
def test_a_prolonged_training_has_the_rates_of_the_longer_one(begun, prepared, tmp_path, changes):
    work = tmp_path / 'work'
    shutil.copytree(begun, work)
    found = train(prepared, work, True, **changes)
    now = BEGUN | changes
    assert found == pytest.approx([now['lr'] * rate_factor(step, now['steps'], now['warmup'])
                                   for step in range(3, now['steps'])])


@pytest.mark.parametrize('changes, message', [
    (dict(steps=2), 'is of step 3, experiment.steps=2'), (dict(batch=2), 'batch=4, now it is 2'),
    (dict(seed=7), 'seed=1234, now it is 7'), (dict(slices=1), 'slices=3, now it is 1'),
    (dict(img_size=64), 'img_size=32, now it is 64'), (dict(stride=2), 'stride=1, now it is 2'),
    (dict(target='all'), "target='center', now it is 'all'"),
    (dict(inflation='average'), "inflation='centering', now it is 'average'"),
    (dict(lifting='late'), "lifting='kernel', now it is 'late'"),
    (dict(tuning='bitfit'), "tuning='full', now it is 'bitfit'"),
    (dict(protocol='paper'), "protocol='sound', now it is 'paper'"),
    (dict(train_percent=50), "split='train', now it is 'train:50%'")])
def test_what_would_make_it_another_training_is_refused(begun, prepared, tmp_path, changes, message):
    work = tmp_path / 'work'
    shutil.copytree(begun, work)
    before = {path: path.read_bytes() for path in work.glob('*.pth')}
    with pytest.raises(UserError, match=f'iter_3.pth: .*{message}.*; set it back, or begin another'):
        train(prepared, work, True, **changes)
    assert {path: path.read_bytes() for path in work.glob('*.pth')} == before


@pytest.mark.parametrize('place, value, message', [
    ('optim_wrapper.optimizer', dict(_delete_=True, type='NAdam', weight_decay=0.1),
     "type='AdamW', now it is 'NAdam'"),
    ('load_from', 'x.pth', 'leave out load_from, or --resume')])
def test_nor_is_it_gone_on_with_by_other_means(begun, prepared, tmp_path, place, value, message):
    work = tmp_path / 'work'
    shutil.copytree(begun, work)
    with pytest.raises(UserError, match=message):
        train(prepared, work, True, more={place: value}, steps=5)


def test_that_no_checkpoint_is_whole_is_said(begun, prepared, tmp_path, capsys):
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'iter_2.pth').write_bytes((begun / 'iter_2.pth').read_bytes()[:5000])
    assert len(train(prepared, work, True)) == 3
    assert 'no whole checkpoint to go on from; the training begins with its first step' in capsys.readouterr().err


@pytest.mark.parametrize('custom, message', [
    ({'bakbone': dict(lr_mult=0.1)}, "custom_keys has 'bakbone', which is in no parameter's name"),
    ({'backbone': dict(lr_mul=0.1)}, 'custom_keys.backbone.lr_mul=0.1 must be left out, lr_mult and decay_mult')])
def test_rates_of_parameters_that_are_not_there_are_refused(prepared, tmp_path, custom, message):
    with pytest.raises(UserError, match=message):
        train(prepared, tmp_path, False, more={'optim_wrapper.paramwise_cfg': dict(custom_keys=custom)})


def test_a_parts_own_rate_leaves_weight_decay_as_it_is():
    cfg = read_config(CONFIG)
    model = torch.nn.ModuleDict(dict(backbone=torch.nn.Linear(2, 2), decode_head=torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))))
    for own, rate in (({}, 10), ({'decode_head.1': dict(lr_mult=3.0, decay_mult=0.5)}, 3)):
        settings = deepcopy(cfg.optim_wrapper)
        settings.paramwise_cfg.custom_keys.update(own)
        settings.optimizer.lr = 1.0
        groups = build_optim_wrapper(model, settings).optimizer.param_groups
        decays = [0.05, 0.0, 0.05, 0.0, *([0.025] * 2 if own else [0.0] * 2)]
        assert [group['weight_decay'] for group in groups] == decays
        assert [group['lr'] for group in groups] == [1, 1, 10, 10, rate, rate]
        assert build_optim_wrapper(model, settings).optimizer.param_groups[2]['lr'] == 10  # nothing is used up


def test_a_checkpoint_is_held_against_the_whole_model(begun, prepared, tmp_path):
    work = tmp_path / 'work'
    shutil.copytree(begun, work)
    content = torch.load(work / 'iter_3.pth', weights_only=False)
    for harm, message in ((lambda state: state.pop('decode_head.conv_seg.bias'), 'conv_seg.bias is missing'),
                          (lambda state: state.update(more=torch.zeros(1)), 'more is unknown to the model')):
        spoilt = content | dict(state_dict=content['state_dict'].copy())
        harm(spoilt['state_dict'])
        torch.save(spoilt, work / 'iter_3.pth')
        with pytest.raises(UserError, match=f'iter_3.pth: does not fit the config: .*{message}'):
            train(prepared, work, True, steps=5)


def test_a_trainings_checkpoint_holds_tensors_and_numbers_alone(begun):
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        histories = torch.load(begun / 'iter_3.pth', weights_only=True)['message_hub']['log_scalars']
    finally:
        torch.serialization.add_safe_globals(others)
    assert [len(part) for part in histories['train/loss']] == [3, 3]


def test_a_finished_training_leaves_its_weights_which_load_or_nothing(begun, prepared, tmp_path):
    kept, bare = tmp_path / 'kept', tmp_path / 'bare'
    for work in (kept, bare):
        shutil.copytree(begun, work)
        if work == kept:
            keep_weights(work)
        drop_checkpoints(work)
        assert not list(work.glob('iter_*')) and not (work / 'last_checkpoint').exists()
    assert not (bare / 'weights.pth').exists()
    whole, weights = (torch.load(path, weights_only=True) for path in (begun / 'iter_3.pth', kept / 'weights.pth'))
    assert whole['state_dict'].keys() == weights['state_dict'].keys() and 'optimizer' not in weights
    assert all(torch.equal(value, whole['state_dict'][key]) for key, value in weights['state_dict'].items())
    assert (kept / 'weights.pth').stat().st_size < 0.5 * (begun / 'iter_3.pth').stat().st_size
    assert len(train(prepared, tmp_path / 'next', False, more={'load_from': str(kept / 'weights.pth')})) == 3


def test_histories_are_gone_on_with_those_of_earlier_versions_too(begun, prepared, tmp_path):
    def resume(name: str, change) -> dict:
        work = tmp_path / name
        shutil.copytree(begun, work)
        content = torch.load(work / 'iter_3.pth', weights_only=True)
        change(content['message_hub'])
        torch.save(content, work / 'iter_3.pth')
        train(prepared, work, True, steps=5)
        return torch.load(work / 'iter_5.pth', weights_only=True)['message_hub']['log_scalars']

    def as_mmengine_has_them(hub: dict) -> None:
        hub['log_scalars'] = {name: HistoryBuffer(*(part.numpy() for part in history))
                              for name, history in hub['log_scalars'].items()}

    now, before = resume('now', lambda hub: None), resume('before', as_mmengine_has_them)
    assert now.keys() == before.keys() and len(now['train/loss'][0]) == 5
    for part, same in zip(now['train/loss'], before['train/loss'], strict=True):
        assert torch.equal(part, same) and part.dtype == same.dtype
    for number, wrong in enumerate((None, {'train/loss': 3}, {'train/loss': [torch.ones(2), torch.ones(3)]})):
        with pytest.raises(UserError, match='iter_3.pth: .*is no history of a training; delete it'):
            resume(f'wrong{number}', lambda hub, wrong=wrong: hub.update(log_scalars=wrong))


def test_one_window_a_pass_through_a_batch_norm_is_one_line(prepared, tmp_path):
    (tmp_path / 'uper.py').write_text(f"""
_base_ = {str(CONFIG)!r}
model = dict(decode_head=dict(
    _delete_=True, type='UPerHead', in_channels=[96] * 4, in_index=[0, 1, 2, 3], pool_scales=(1, 2), channels=8,
    num_classes=2, norm_cfg=dict(type='BN'), align_corners=False, loss_decode=dict(type='DiceFocalLoss')))
""")
    with pytest.raises(UserError, match='a pass of one window.*; take a smaller experiment.accumulate'):
        train(prepared, tmp_path, False, tmp_path / 'uper.py', batch=2, accumulate=2)


@pytest.mark.parametrize('text, message', [
    ("auto_scale_lr = dict(enable=True, base_batch_size=8)", 'auto_scale_lr: the rate is experiment.lr'),
    ("train_cfg = dict(type='IterBasedTrainLoop')", 'training is by StepLoop alone'),
    ("optim_wrapper = dict(type='AmpOptimWrapper')", 'set experiment.precision to bf16'),
    ("optim_wrapper = dict(type='AutocastOptimWrapper')", 'set experiment.precision to bf16'),
    ("model = dict(backbone=dict(tuning='frozen'))", "tuning='frozen', but experiment.tuning decides it"),
    ("model = dict(backbone=dict(lifting='divided'))", "lifting='divided', but experiment.lifting decides it"),
    ("train_dataloader = dict(sampler=dict(seed=5))", 'sampler.seed=5, but experiment.seed decides it'),
    ("default_hooks = dict(neighbour_rate=dict(type='NeighbourRate', factor=0.5))", 'neighbour_lr decides it')])
def test_schedules_that_would_not_be_followed_are_refused(prepared, tmp_path, text, message):
    (tmp_path / 'config.py').write_text(f'_base_ = {str(CONFIG)!r}\n{text}\n')
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / 'config.py', {'experiment.data_root': str(prepared)})


@pytest.fixture(scope='module')
def kernels(prepared, tmp_path_factory):
    """Function: the kernel before training and after every step, by slices (steps + 1, E, C, S, P, P)."""
    def kernels(work=None, resume=False, more=None, hooks=(), **changes) -> torch.Tensor:
        kernel = Kernel()
        work = work or tmp_path_factory.mktemp('kernel') / 'work'
        train(prepared, work, resume, more=more, hooks=[kernel, *hooks], **changes)
        return torch.stack(kernel.found).unflatten(2, (-1, 3))
    return kernels


@pytest.mark.parametrize('changes', [{}, dict(precision='bf16', accumulate=2), dict(target='all', stride=0)])
def test_neighbour_slices_of_the_kernel_move_by_a_factor_of_the_step_or_not_at_all(kernels, changes):
    plain, tenth, held = (kernels(neighbour_lr=factor, **changes) for factor in (1, 0.1, 0))
    moved = plain[1] - plain[0]
    assert moved[:, :, 0].abs().min() > 0
    rounding = torch.finfo(torch.float32).eps * plain[1].abs().max().item()  # of the weights that have moved
    torch.testing.assert_close((tenth[1] - tenth[0])[:, :, ::2], 0.1 * moved[:, :, ::2], rtol=1e-3, atol=rounding)
    for found in (tenth, held):
        assert torch.equal(found[1][:, :, 1], plain[1][:, :, 1])
    assert torch.equal(held[:, :, :, ::2], held[:1, :, :, ::2].expand_as(held[:, :, :, ::2]))
    assert not torch.equal(held[-1][:, :, 1], held[0][:, :, 1])


def test_a_plain_momentum_step_is_scaled_as_a_rate_of_its_own_would(kernels):
    sgd = {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', momentum=0.9, weight_decay=0.1)}
    plain, half = (kernels(more=sgd, neighbour_lr=factor) for factor in (1, 0.5))
    moved = [(found[1] - found[0])[:, :, ::2] for found in (plain, half)]
    torch.testing.assert_close(moved[1], 0.5 * moved[0], rtol=1e-3, atol=1e-8)


def test_neighbours_with_a_rate_of_their_own_go_on_from_a_checkpoint_as_if_never_stopped(kernels, tmp_path):
    whole = kernels(neighbour_lr=0.1, steps=5)
    with pytest.raises(Stopped):
        kernels(tmp_path / 'work', hooks=[Interrupt()], neighbour_lr=0.1, steps=5)
    resumed = kernels(tmp_path / 'work', resume=True, neighbour_lr=0.1, steps=5)
    assert len(resumed) == 3 and torch.equal(resumed[-1], whole[-1]) and not torch.equal(whole[2], whole[-1])


def test_a_rate_of_neighbours_is_for_kernels_that_have_them(prepared):
    video = REPO / 'configs/videoswin_centering_phantom.py'
    for config, changes, hooked in ((CONFIG, dict(neighbour_lr=0), True), (CONFIG, dict(neighbour_lr=1), False),
                                    (CONFIG, dict(neighbour_lr=0, slices=1), False),
                                    (video, dict(neighbour_lr=1), False)):
        assert ('neighbour_rate' in load_config(config, options(prepared, **changes)).default_hooks) == hooked
    with pytest.raises(UserError, match='neighbour_lr=0.1: the patch embedding of VideoSwin has no kernel with a'):
        load_config(video, options(prepared, neighbour_lr=0.1))

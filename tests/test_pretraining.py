"""2D pre-training: DINO's step by hand, its views, its checkpoint as a source, resume, two processes."""

import math
import shlex
import sys

import children
import pytest
import torch
from children import finish
from conftest import REPO, call_tool
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from test_tools import run

from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.models import InflatedViT, MultiCrop
from mmseg_plugins.pretraining import check_pretraining, pretrain

CONFIG = REPO / 'configs' / 'mini_beit_dino_layout.py'
TINY = {'experiment.img_size': 32, 'experiment.batch': 4, 'experiment.warmup': 1,
        'model.backbone.sizes.depth': 1, 'model.backbone.out_indices': (0,) * 4}


@pytest.fixture(scope='module')
def layout(tmp_path_factory):
    folder = tmp_path_factory.mktemp('prepared') / 'layout'
    prepare_layout(folder, count=32, size=32)
    return folder


def config(data, work_dir=None, path=CONFIG, **options):
    head = {'model.head': dict(hidden=32, bottleneck=16, prototypes=24)} if path == CONFIG else {}
    cfg = load_config(path, TINY | head | {'experiment.data_root': str(data)} | options)
    prepare_for_device(cfg, 'none')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir}'.replace('/', '-')
    return cfg


def build(cfg):
    init_default_scope('mmseg')
    torch.manual_seed(3)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train()


def test_the_teacher_is_the_moving_average_of_the_student(layout):
    model = build(config(layout, **{'experiment.steps': 10, 'model.momentum': 0.9}))
    images = torch.randn(4, 3, 32, 32)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    expected = {name: p.clone() for name, p in model.backbone.model.named_parameters()}
    for step in range(4):
        weight = 0.1 * (1 + math.cos(math.pi * step / 10)) / 2
        expected = {name: p.lerp(dict(model.student.named_parameters())[name], weight).detach()
                    for name, p in expected.items()}
        optimizer.zero_grad()
        model.loss(images)['loss'].backward()
        for name, teacher in model.backbone.model.named_parameters():
            assert torch.equal(teacher, expected[name]), name
        optimizer.step()
    assert not torch.equal(model.student.cls_token, model.backbone.model.cls_token)


def test_accumulated_passes_move_the_teacher_once(layout):
    model = build(config(layout, **{'experiment.accumulate': 2}))
    with torch.no_grad():
        model.student.cls_token.add_(1)
    tokens = []
    for _ in range(3):
        model.loss(torch.randn(2, 3, 32, 32))
        tokens.append(model.backbone.model.cls_token.clone())
    assert torch.equal(tokens[0], tokens[1]) and not torch.equal(tokens[1], tokens[2])


def test_an_objectives_schedules_count_passes_so_that_these_must_stay(layout, tmp_path):
    steps = {'experiment.steps': 2}
    pretrain(config(layout, tmp_path / 'work', **steps), tmp_path / 'out.pth')
    cfg = config(layout, tmp_path / 'work', **steps, **{'experiment.accumulate': 2})
    cfg.resume = True
    with pytest.raises(UserError, match='accumulate'):
        pretrain(cfg, tmp_path / 'out.pth')


@pytest.mark.parametrize('key, value', [('slices', 5), ('lifting', 'late')])
def test_pretraining_is_of_single_images(layout, tmp_path, key, value):
    options = {'experiment.data_root': str(layout), 'experiment.source': None, f'experiment.{key}': value}
    with pytest.raises(UserError, match=f'experiment.{key}={value}: pre-training is 2D, of one slice'):
        pretrain(load_config(REPO / 'configs/mini_beit_layout.py', options), tmp_path / 'out.pth')


def test_an_objective_without_labels_trains_all_weights(layout):
    for key, value in (('tuning', 'lora'), ('lifting', 'late'), ('inflation', 'separable')):
        with pytest.raises(UserError, match=f'experiment.{key}={value}: an objective without labels'):
            config(layout, **{f'experiment.{key}': value})


def test_loss_and_centre_equal_the_formula(layout):
    """Caron et al. 2021, algorithm 1, over all pairs of a teacher's and another student's view."""
    model = build(config(layout))
    model.centre.normal_()
    model.passes += 3
    centre, views = model.centre.clone(), []
    model.multi_crop.register_forward_hook(lambda module, inputs, output: views.extend(output))
    images = torch.randn(3, 3, 32, 32)
    losses = model.loss(images)
    with torch.no_grad():
        teacher = model.teacher_head(model.backbone.model.forward_features(views[0])[:, 0])
        student = model.head(model.student.forward_features(torch.cat(views))[:, 0])
    cold, warm = model.teacher_temperature
    temperature = cold + (warm - cold) * 3 / (model.temperature_warmup * model.steps)
    targets = ((teacher - centre) / temperature).softmax(1).split(3)
    guesses = (student / 0.1).log_softmax(1).split(3)
    pairs = [-(target * guess).sum(1).mean() for t, target in enumerate(targets)
             for s, guess in enumerate(guesses) if s != t]
    assert len(pairs) == 2 * 3
    torch.testing.assert_close(losses['loss'], torch.stack(pairs).mean())
    kept = model.centre_momentum
    torch.testing.assert_close(model.centre, kept * centre + (1 - kept) * teacher.mean(0, keepdim=True))


def test_collapse_shows_in_what_is_logged(layout):
    model = build(config(layout))
    images = torch.randn(4, 3, 32, 32)
    assert model.loss(images)['teacher_information'] > 0.1
    with torch.no_grad():
        model.teacher_head.mlp[-1].weight.zero_()  # all images alike
        model.teacher_head.mlp[-1].bias.fill_(1)
        model.passes.zero_()
    # The next pass sets the centre anew: outputs are uniform.
    losses = model.loss(images)
    assert abs(losses['teacher_information']) < 1e-3
    assert losses['teacher_entropy'] == pytest.approx(math.log(24), abs=1e-3)


def test_views_are_crops_of_the_image():
    crop = MultiCrop(local_crops=3, local_size=8, contrast=0, brightness=0, noise=0)
    ramp = torch.linspace(-1, 1, 16)
    images = torch.stack([ramp.expand(16, 16), ramp[:, None].expand(16, 16)]).expand(5, 2, 16, 16)
    big, small = crop(images, torch.Generator().manual_seed(0))
    assert big.shape == (10, 2, 16, 16) and small.shape == (15, 2, 8, 8)
    for views, (least, most) in ((big, (0.4, 1)), (small, (0.05, 0.4))):
        x, y = views[:, 0], views[:, 1]
        torch.testing.assert_close(x, x[:, :1].expand_as(x))       # nothing is sheared
        torch.testing.assert_close(y, y[:, :, :1].expand_as(y))
        side = views.shape[-1]
        # Between the outermost pixels lie (side - 1) / side of the crop; the ramp spans 15 / 16 of the image.
        share = [axis.abs() / 2 * 15 / 16 * side / (side - 1)
                 for axis in (x[:, 0, -1] - x[:, 0, 0], y[:, -1, 0] - y[:, 0, 0])]
        area = share[0] * share[1]
        assert (area > least * 0.75).all() and (area < most * 1.01).all()
        assert 0 < (x[:, 0, 0] > x[:, 0, -1]).sum() < len(x)       # some are flipped


def test_training_lowers_the_loss_and_leaves_the_teacher_to_the_average(layout):
    cfg = config(layout)
    model = build(cfg)
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    trained = {id(p) for group in optim.param_groups for p in group['params']} & {*map(id, model.parameters())}
    assert trained == {id(p) for part in (model.student, model.head) for p in part.parameters()}
    images = torch.randn(4, 3, 32, 32)
    model.loss(images)['loss'].backward()
    # Exactly these get a gradient: nothing is unused in a distributed run.
    assert {id(p) for p in model.parameters() if p.grad is not None} == trained
    losses = []
    for _ in range(30):
        values = model.loss(images)
        optim.update_params(values['loss'])
        losses.append(values['loss'].item())
    assert sum(losses[-5:]) < sum(losses[:5])


class Interrupt(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:  # counted from 0; a checkpoint of two steps is there
            raise KeyboardInterrupt


def test_a_killed_run_ends_as_if_it_had_not_been(layout, tmp_path):
    steps = {'experiment.steps': 5, 'experiment.checkpoint_interval': 2}
    metrics = pretrain(config(layout, tmp_path / 'whole', **steps), tmp_path / 'whole.pth')
    assert set(metrics) == {'loss', 'teacher_entropy', 'teacher_information'}
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(layout, tmp_path / 'killed', **steps), tmp_path / 'killed.pth', [Interrupt()])
    assert not (tmp_path / 'killed.pth').exists()
    cfg = config(layout, tmp_path / 'killed', **steps)
    cfg.resume = True
    pretrain(cfg, tmp_path / 'killed.pth')
    whole, killed = (torch.load(tmp_path / f'{name}.pth', weights_only=True)['model']
                     for name in ('whole', 'killed'))
    for key in whole:
        torch.testing.assert_close(whole[key], killed[key], msg=key)

    size = dict(img_size=32, sizes=dict(cfg.model.backbone.sizes), out_indices=(0,) * 4)
    as_it_is = InflatedViT(slices=1, channels=3, inflation='none', source=str(tmp_path / 'whole.pth'), **size)
    inflated = InflatedViT(slices=5, channels=1, source=str(tmp_path / 'whole.pth'), **size)
    for encoder in (as_it_is, inflated):
        encoder.init_weights()
        assert not encoder.load_report.missing and not encoder.load_report.dropped
    assert all(torch.equal(value, whole[key]) for key, value in as_it_is.model.state_dict().items())
    with pytest.raises(UserError, match='shape'):
        InflatedViT(slices=5, channels=1, inflation='none', source=str(tmp_path / 'whole.pth'), **size
                    ).init_weights()

    supervised = config(layout, tmp_path / 'both', REPO / 'configs' / 'mini_beit_dino_layout_supervised.py', **{
        'experiment.source': str(tmp_path / 'whole.pth'), 'experiment.steps': 2})
    assert 'DSC pooled' in pretrain(supervised, tmp_path / 'both.pth')


def test_two_processes_on_slices_of_one_channel(prepared, tmp_path):
    values = TINY | {'experiment.data_root': prepared, 'experiment.steps': 2}
    options = [f'{key}={",".join(map(str, value)) if isinstance(value, tuple) else value}'
               for key, value in values.items()]
    out = tmp_path / 'encoder.pth'
    arguments = ['--out', out, '--launcher', 'pytorch', '--work-dir', tmp_path, '--cfg-options', *options]
    finish(children.start_ranks(2, children.script, ['tools/pretrain.py', CONFIG, *arguments], tmp_path / 'log'))
    assert (tmp_path / 'log').read_text().strip().splitlines()[-1] == str(out)
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=True)['state_dict']
    assert state['passes'] == 2 and state['centre'].any()
    assert torch.load(out, weights_only=True)['model']['patch_embed.proj.weight'].shape[1] == 1

    again = [CONFIG, '--out', out, '--resume', '--dry-run', '--cfg-options', *options]
    call_tool('pretrain', *again, '--work-dir', tmp_path)
    with pytest.raises(UserError, match='--overwrite'):  # nothing there that it would go on from
        call_tool('pretrain', *again, '--work-dir', tmp_path / 'empty')


def test_what_trains_no_2d_encoder_is_refused_before_it_begins(layout, prepared):
    kernel = {'experiment.lifting': None}  # which is `kernel`
    check_pretraining(load_config(CONFIG, kernel | {'experiment.data_root': str(layout)}))
    for path, options, message in (
            ('mini_beit_centering_hippocampus', {}, 'experiment.slices=5: .* one slice'),
            ('mini_beit_centering_hippocampus', {'experiment.slices': 1, 'experiment.lifting': 'late'},
             'experiment.lifting=late: .* one slice'),
            ('unet3d_phantom', {}, 'unet3d_phantom.py: its network takes crops')):
        values = {'experiment.data_root': str(prepared), 'experiment.source': None} | options
        with pytest.raises(UserError, match=message):
            call_tool('pretrain', REPO / f'configs/{path}.py', '--out', 'w.pth', '--dry-run', '--cfg-options',
                      *(f'{key}={value}' for key, value in values.items()))


def test_mistakes_are_named(layout, tmp_path):
    for options, message in (
            ({'experiment.slices': 5}, 'one slice'),
            ({'model.crops.local_size': 16}, 'takes one input size'),
            ({'model.backbone.type': 'InflatedSwin', 'model.backbone.model': 'swin_tiny_patch4_window7_224',
              'model.backbone.sizes': None}, 'class token'),
            ({'model.backbone.model': 'vit_little_patch16_reg1_gap_256', 'model.backbone.sizes': None,
              'model.crops.local_size': 0}, 'class token')):
        with pytest.raises(UserError, match=message):
            build(config(layout, **options))
    output = run([sys.executable, 'tools/pretrain.py', CONFIG, '--out', tmp_path / 'no.pth',
                  '--cfg-options', 'experiment.data_root=/no/layout'], check=2)
    assert f'{shlex.quote(str(REPO / "tools/prepare_data.py"))} layout' in output
    assert len(output.strip().splitlines()) == 1

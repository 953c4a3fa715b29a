"""Precision, activation checkpointing, compilation and memory layout: the same training, computed another way."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from conftest import REPO
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from mmseg.registry import MODELS
from torch.nn.functional import scaled_dot_product_attention as attend

from benchmarks.runs.run import describe_kind
from mmseg_plugins import acceleration
from mmseg_plugins.acceleration import compile_in_training
from mmseg_plugins.building import build_model
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import check_start, load_config, prepare_for_device
from mmseg_plugins.flops import count_cost
from mmseg_plugins.inference import load_model
from mmseg_plugins.models import InflatedSwin, InflatedViT, VideoSwin

CONFIG = REPO / 'configs' / 'mini_beit_centering_hippocampus.py'
DINO = REPO / 'configs' / 'mini_beit_dino_phantom.py'
TINY = {'experiment.source': None, 'experiment.img_size': 32, 'experiment.batch': 4, 'experiment.warmup': 1,
        'model.backbone.sizes.depth': 1, 'model.backbone.out_indices': (0,) * 4}
DEPTHS = dict(depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4), embed_dim=12)


def configure(data, path=CONFIG, options=None, **experiment):
    head = {'model.head': dict(hidden=32, bottleneck=16, prototypes=24)} if path == DINO else {}
    cfg = load_config(path, TINY | head | {'experiment.data_root': str(data)} | (options or {})
                      | {f'experiment.{key}': value for key, value in experiment.items()})
    prepare_for_device(cfg, 'none')
    return cfg


def train(cfg, steps=3, device='cpu'):
    """The model and its losses after some steps from the same seed, whatever the options."""
    init_default_scope('mmseg')
    set_random_seed(5)
    model = MODELS.build(cfg.model).to(device).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=5))
    return model, torch.tensor([model.train_step(next(batches), optimizer)['loss'].item() for _ in range(steps)])


@pytest.mark.parametrize('path', [CONFIG, DINO], ids=lambda path: path.stem)
def test_bf16_trains_on_a_cpu_near_float32_its_weights_in_float32(prepared, path):
    _, exact = train(configure(prepared, path))
    cfg = configure(prepared, path, precision='bf16')
    before = train(cfg, steps=0)[0].state_dict()
    model, rounded = train(cfg)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0)
    assert {value.dtype for value in model.state_dict().values()} <= {torch.float32, torch.int64}
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_under_bf16_images_are_scaled_and_losses_taken_in_float32(prepared):
    def watch(precision):
        cfg, seen = configure(prepared, precision=precision), []
        model, _ = train(cfg, steps=0)
        model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model.backbone.model.blocks[0].mlp.fc1.register_forward_hook(lambda _, inputs, out: seen.append(out))
        model.decode_head.loss_decode.register_forward_hook(lambda _, inputs, loss: seen.append(loss))
        set_random_seed(5)
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=5)))
        model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
        return seen

    (images, features, loss), (images_16, features_16, loss_16) = watch('fp32'), watch('bf16')
    assert torch.equal(images, images_16)
    assert (features.dtype, features_16.dtype) == (torch.float32, torch.bfloat16)
    assert loss.dtype == loss_16.dtype == torch.float32


def watch_inference(prepared, name, layers, logits, **experiment):
    """The types of layers' outputs, and what a method gives, in the prediction of a batch."""
    base = TINY if 'mini' in name else {'experiment.crop': (4, 16, 16), 'experiment.batch': 2}
    cfg = load_config(REPO / f'configs/{name}.py', base | {'experiment.data_root': str(prepared)} | {
        f'experiment.{key}': value for key, value in experiment.items()})
    prepare_for_device(cfg, 'none')
    model, types, found = train(cfg, steps=0)[0].eval(), [], []
    for layer in layers:
        model.get_submodule(layer).register_forward_hook(lambda _, inputs, out: types.append(out.dtype))
    owner, _, method = logits.rpartition('.')
    owner = model.get_submodule(owner)
    original = getattr(owner, method)
    setattr(owner, method, lambda *args: found.append(original(*args)) or found[-1])
    model.test_step(next(iter(Runner.build_dataloader(cfg.test_dataloader))))
    return set(types), found[0]


@pytest.mark.parametrize('where, settings', [
    (WINDOWS := ('mini_beit_centering_hippocampus', ['backbone.model.blocks.0.mlp.fc1', 'decode_head.conv_seg'],
                 'decode_head.predict_by_feat'), dict(target='center')),
    (WINDOWS, dict(target='all')),
    (('unet3d_phantom', ['network.model.0.conv.unit0.conv', 'network.model.2.1.conv.unit0.conv'], '_finest'), {})])
def test_inference_in_bf16_is_near_float32_and_its_logits_are_float32(prepared, where, settings):
    """Training's precision is its own affair."""
    kinds, exact = watch_inference(prepared, *where, **settings, precision='bf16')
    others, rounded = watch_inference(prepared, *where, **settings, inference_precision='bf16')
    assert (kinds, others) == ({torch.float32}, {torch.bfloat16})
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < (rounded - exact).std() < 0.02 * exact.std()


def test_an_inference_precision_is_told_where_it_is_not_the_usual(prepared):
    for value, said in ((None, False), ('fp32', False), ('bf16', True)):
        cfg = configure(prepared, inference_precision=value)
        for words in (check_start(cfg, 1), describe_kind('mini', cfg.experiment, 3)):
            assert ('inference in bf16' in words) == said, words


def test_an_inference_precision_that_there_is_not_is_refused_wherever_it_comes_from(prepared):
    cfg = configure(prepared)
    cfg.model.inference_precision = 'bf61'  # as a checkpoint may carry it
    with pytest.raises(UserError, match="inference_precision 'bf61': must be one of fp32, bf16, fp16"):
        train(cfg, steps=0)
    with pytest.raises(UserError, match='inference_precision=bf16: an objective without labels predicts nothing'):
        configure(prepared, DINO, inference_precision='bf16')
    configure(prepared, DINO, inference_precision='fp32')


@pytest.mark.parametrize('dtype, tokens, mask, fused', [
    (torch.bfloat16, 65, False, False), (torch.bfloat16, 5, True, False), (torch.bfloat16, 513, False, True),
    (torch.float32, 65, False, True)])
def test_attention_on_a_cpu_is_in_parts_where_that_is_faster(dtype, tokens, mask, fused):
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, tokens, 8, requires_grad=True) for _ in range(3)]
    mask = torch.randn(3, tokens, tokens) if mask else None
    exact = attend(*parts, attn_mask=mask)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        found = attend(*(part.to(dtype) for part in parts), attn_mask=mask)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.03)
    graph, names = [found.grad_fn], set()
    while graph:
        names.add((node := graph.pop()).name())
        graph += [inner for inner, _ in node.next_functions if inner]
    assert any('ScaledDotProduct' in name for name in names) == fused


@pytest.mark.parametrize('kernel, size', [(3, (2, 10, 10)), (3, (4, 10, 10)), (5, (5, 1, 8)), (5, (3, 8, 8))])
def test_a_kernel_larger_than_its_volume_has_its_gradient_in_bf16_too(kernel, size):
    torch.manual_seed(0)
    layer, volume = torch.nn.Conv3d(16, 16, kernel, padding=kernel // 2), torch.randn(2, 16, *size)

    def gradients(halves):
        layer.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=halves):
            found = layer(volume)
        held = [torch.full((length,), torch.nan) for length in (1000, 5000, 20000, 100000) for _ in range(6)]
        del held  # what a gradient that is not computed would be made of
        found.backward(torch.ones_like(found))
        return found.dtype, layer.weight.grad.clone(), layer.bias.grad.clone()

    (_, *exact), (kind, *rounded) = gradients(False), gradients(True)
    assert kind == torch.bfloat16
    for mine, theirs in zip(rounded, exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item())


ENCODERS = {
    'beit': (InflatedViT, 32, dict(sizes=dict(patch_size=8, embed_dim=24, depth=3, num_heads=3),
                                   out_indices=(0, 1, 2, 2))),
    'vit': (InflatedViT, 32, dict(model='vit_base_patch16_224', out_indices=(0, 1, 2, 2),
                                  sizes=dict(patch_size=8, embed_dim=24, depth=3, num_heads=3))),
    'swin': (InflatedSwin, 64, dict(sizes=dict(patch_size=2, window_size=4, **DEPTHS))),
    'videoswin': (VideoSwin, 64, dict(sizes=dict(window_size=(2, 4, 4), **DEPTHS)))}


@pytest.mark.parametrize('name', ENCODERS)
def test_activation_checkpointing_runs_blocks_twice_for_the_same_gradients(name):
    """With drop path, whose draws must be the same again; also in a copy of the encoder, as DINO makes one."""
    kind, size, settings = ENCODERS[name]

    def gradients(with_cp):
        torch.manual_seed(3)
        encoder = copy.deepcopy(kind(slices=5, img_size=size, drop_path_rate=0.5, with_cp=with_cp, **settings))
        runs = []
        for module in encoder.train().modules():
            if hasattr(module, 'mlp'):
                module.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
        loss = sum(features.square().mean() for features in encoder(torch.randn(2, 5, size, size)))
        forward = len(runs)
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in encoder.parameters())], forward, len(runs)

    kept, forward, total = gradients(False)
    again, forward_again, total_again = gradients(True)
    assert all(map(torch.equal, kept, again))
    assert forward == total == forward_again and total_again == 2 * forward


@pytest.mark.parametrize('path', [CONFIG, DINO], ids=lambda path: path.stem)
def test_channels_last_is_the_same_to_rounding(prepared, path):
    _, losses = train(configure(prepared, path))
    model, others = train(configure(prepared, path, channels_last=True))
    torch.testing.assert_close(others, losses, rtol=1e-5, atol=0)
    kernel = model.backbone.model.patch_embed.proj.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert kernel.is_contiguous() == (kernel.shape[1] == 1)  # of one channel, both are the same


def test_video_swin_keeps_its_5d_kernels_where_channels_go_last(prepared):
    path = REPO / 'configs' / 'videoswin_centering_phantom.py'
    cfg = load_config(path, {'experiment.source': None, 'experiment.data_root': str(prepared),
                             'experiment.batch': 2, 'experiment.channels_last': True})
    model, losses = train(cfg, steps=1)
    assert model.backbone.model.patch_embed.proj.weight.ndim == 5 and losses.isfinite().all()


@pytest.mark.parametrize('path', [CONFIG, DINO], ids=lambda path: path.stem)
def test_training_alone_is_compiled_and_checkpoints_are_interchangeable(prepared, monkeypatch, path):
    """By dynamo and autograd's tracing; what inductor makes of it is tested below."""
    compiled = []

    def trace(method, **settings):
        compiled.append(method.__self__)
        return original(method, backend='aot_eager', **settings)

    original = torch.compile
    monkeypatch.setattr(torch, 'compile', trace)
    model, losses = train(configure(prepared, path))
    other, others = train(configure(prepared, path, compile=True, activation_checkpointing=True))
    torch.testing.assert_close(others, losses, rtol=1e-4, atol=0)
    parts = ([other.backbone, other.neck, other.decode_head] if path == CONFIG else
             [other.backbone.model, other.teacher_head, other.student, other.head])
    assert [id(part) for part in compiled] == [id(part) for part in parts]
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    if path == CONFIG:
        assert count_cost(other, (32, 32)) == count_cost(model, (32, 32))
        window = torch.randn(1, 5, 32, 32)
        assert torch.equal(other.eval()(window, mode='tensor'), model.eval()(window, mode='tensor'))
        twin = copy.deepcopy(other)  # as a moving average is made
        assert twin.backbone.forward.method.__self__ is twin.backbone and twin.backbone.forward.model is twin
        assert len(compiled) == 3


@pytest.mark.skipif(acceleration.missing_for_compilation(torch.cuda.is_available()) is not None,
                    reason='no compiler for torch.compile')
def test_compiled_by_inductor_to_rounding(prepared, monkeypatch):
    model, other = (train(configure(prepared), steps=0)[0] for _ in range(2))
    compile_in_training(other, [other.decode_head.cls_seg])  # a small part: the whole takes half a minute
    results, settings = [], torch._inductor.config
    if hasattr(settings, 'cpp_cache_precompile_headers'):  # worth its time from some dozens of kernels on
        monkeypatch.setattr(settings, 'cpp_cache_precompile_headers', False)
    for head in (model.decode_head, other.decode_head):
        torch.manual_seed(1)
        out = head.cls_seg(torch.randn(2, 40, 8, 8)).square()
        out.mean().backward()
        results.append([out.detach(), head.conv_seg.weight.grad, head.conv_seg.bias.grad])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
    assert other.decode_head.cls_seg.compiled is not None


@pytest.mark.parametrize('experiment, message', [
    (dict(precision='bf61'), r"experiment.precision='bf61'; did you mean 'bf16'"),
    (dict(precision='double'), 'known: bf16, fp16, fp32, tf32'),
    (dict(activation_checkpoint=True), "did you mean 'activation_checkpointing'"),
    (dict(compile='yes'), "experiment.compile='yes' must be True or False"),
])
def test_misspelt_options_are_one_line(prepared, experiment, message):
    with pytest.raises(UserError, match=message):
        configure(prepared, **experiment)


@pytest.mark.skipif(torch.cuda.is_available(), reason='of machines without a GPU')
def test_fp16_needs_a_gpu_to_train_but_not_to_evaluate(prepared, capsys):
    with pytest.raises(UserError, match='precision=fp16 needs a GPU.*bf16'):
        configure(prepared, precision='fp16')
    with pytest.raises(UserError, match='inference_precision=fp16 needs a GPU.*bf16'):
        configure(prepared, inference_precision='fp16')
    cfg = load_config(CONFIG, TINY | {'experiment.data_root': str(prepared), 'experiment.precision': 'fp16',
                                      'experiment.inference_precision': 'fp16'})
    prepare_for_device(cfg, 'none', train=False)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    said = capsys.readouterr().err
    assert 'experiment.inference_precision=fp16: changes nothing on a CPU: float32' in said
    assert 'experiment.precision' not in said
    model, _ = train(cfg, steps=0)
    seen = []
    model.backbone.model.blocks[0].mlp.fc1.register_forward_hook(lambda _, inputs, out: seen.append(out.dtype))
    model.eval().test_step(next(iter(Runner.build_dataloader(cfg.test_dataloader))))
    assert set(seen) == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_fp16_scales_the_loss_and_trains(prepared):
    _, losses = train(configure(prepared), device='cuda')
    cfg = configure(prepared, precision='fp16')
    model, others = train(cfg, device='cuda')
    torch.testing.assert_close(others, losses, rtol=0.03, atol=0)
    assert build_optim_wrapper(model, cfg.optim_wrapper).loss_scaler.get_scale() > 1


def test_compiling_without_a_compiler_is_one_line(prepared, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(UserError, match='experiment.compile: torch.compile needs .*leave the option out'):
        configure(prepared, compile=True)


@pytest.mark.filterwarnings('ignore:.*which is a no-op')
def test_float32_is_float32_and_tf32_says_where_it_changes_nothing(prepared, capsys):
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    configure(prepared, precision='tf32')
    assert all(backend.allow_tf32 for backend in flags)
    if not torch.cuda.is_available():
        assert 'experiment.precision=tf32: changes nothing on a CPU' in capsys.readouterr().err
    cfg = configure(prepared)  # the next run of the same process
    assert not any(backend.allow_tf32 for backend in flags)
    flags[1].allow_tf32 = True  # torch's own default
    load_model(cfg, dict(state_dict=build_model(cfg).state_dict()), Path('a.pth'), 'meta')
    assert not flags[1].allow_tf32

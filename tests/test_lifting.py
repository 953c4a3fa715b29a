"""Liftings: what each preserves of the 2D model, against the definitions of their papers, and that they train."""

import copy
import inspect
import itertools
import json
import logging
import os
import sys
import textwrap

import children
import pytest
import torch
from conftest import REPO
from mmengine.registry import init_default_scope
from timm.layers import DropPath
from torch.nn.functional import adaptive_avg_pool1d, gelu

from benchmarks import certificates
from mmseg_plugins import lifting
from mmseg_plugins.certificate import build_encoder, certify
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config
from mmseg_plugins.lifting import LIFTINGS, attend, blocks_of, parse_lifting
from mmseg_plugins.lifting.positions import rows_between
from mmseg_plugins.models import InflatedSwin, InflatedViT

SIZES = dict(embed_dim=24, depth=4, num_heads=2)
# Absolute, relative and rotary positions; class and register tokens, layer scale.
ENCODERS = {
    'vit': dict(model='vit_small_patch16_224', img_size=32, sizes=SIZES),
    'beit': dict(model='beit_base_patch16_224', img_size=32, sizes=SIZES | dict(init_values=0.5)),
    'eva': dict(model='eva02_tiny_patch14_224', img_size=28, sizes=SIZES),
    'dinov2': dict(model='vit_small_patch14_reg4_dinov2', img_size=28, sizes=SIZES | dict(init_values=0.5)),
    'dinov3': dict(model='vit_small_patch16_dinov3', img_size=32, sizes=SIZES | dict(init_values=0.5)),
    'swin': dict(model='swin_base_patch4_window7_224', img_size=56, drop_path_rate=0.0, sizes=dict(
        embed_dim=12, depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))),
}
VITS = [name for name in ENCODERS if name != 'swin']
ROTARY = ('eva', 'dinov3')
EXACT = ('divided', 'adapter_conv', 'adapter_attention', 'late', 'late_attention')
OTHERS = ('adapter_conv_pair', 'plane_cycle', 'joint')
IN_SWIN = ('divided', 'adapter_conv', 'adapter_attention', 'adapter_conv_pair', 'late')


def build(name: str, how: str = 'kernel', slices: int = 5, channels: int = 1, **settings) -> InflatedViT:
    """An encoder in which everything counts that starts at zero in timm's."""
    torch.manual_seed(0)
    kind = InflatedSwin if name == 'swin' else InflatedViT
    encoder = kind(**{**ENCODERS[name], 'slices': slices, 'channels': channels, 'lifting': how,
                      'out_indices': (0, 1, 2, 3), **settings})
    generator = torch.Generator().manual_seed(1)
    for key, parameter in encoder.model.named_parameters():
        if key != 'patch_embed.proj.weight':
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    encoder.init_weights()
    return encoder.eval()


def window_of(encoder: InflatedViT, batch: int = 2) -> torch.Tensor:
    height, width = (encoder.img_size,) * 2 if isinstance(encoder.img_size, int) else encoder.img_size
    return torch.randn(batch, encoder.channels, encoder.slices, height, width, dtype=torch.float64)


def start_from(encoder: InflatedViT, flat: InflatedViT) -> InflatedViT:
    """With the weights of an encoder of one slice, its kernel in the centre of a token's slices."""
    state = flat.model.state_dict()
    kernel = state['patch_embed.proj.weight'].unflatten(1, (flat.channels, 1))
    wider = kernel.new_zeros(*kernel.shape[:2], encoder.kernel_slices, *kernel.shape[3:])
    wider[:, :, encoder.kernel_slices // 2] = kernel[:, :, 0]
    encoder.model.load_state_dict(state | {'patch_embed.proj.weight': wider.flatten(1, 2)})
    encoder.init_weights()
    return encoder


def largest_difference(got, wanted) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize('name', ENCODERS)
@pytest.mark.parametrize('how', EXACT)
@torch.no_grad()
def test_it_starts_as_the_2d_model_on_the_centre_slice(name, how):
    for slices, channels in ((1, 1), (2, 1), (5, 2)):
        flat = build(name, slices=1, channels=channels)
        lifted = start_from(build(name, how, slices, channels), flat)
        window = window_of(lifted)
        # in one pass of all slices, as matrix products of other sizes round otherwise on some processors
        planes = flat.double()(window.movedim(2, 1).flatten(0, 1))
        wanted = [maps.unflatten(0, (-1, slices))[:, slices // 2] for maps in planes]
        assert largest_difference(lifted.double()(window.flatten(1, 2)), wanted) == 0
        single = lifted.float()(window.float().flatten(1, 2))
        assert largest_difference(single, flat.float()(window[:, :, slices // 2].float())) < 1e-5


ZEROS = {'divided': ['last.weight', 'last.bias'], 'adapter_conv': ['conv.weight', 'conv.bias', 'up.bias'],
         'adapter_attention': ['2.weight', '2.bias'], 'late': ['weights'], 'late_attention': ['last.weight']}


@pytest.mark.parametrize('how, ending', [(how, ending) for how in ZEROS for ending in ZEROS[how]])
@torch.no_grad()
def test_each_zero_that_it_starts_with_is_needed(how, ending):
    flat = build('beit', slices=1)
    lifted = start_from(build('beit', how), flat).double()
    window = window_of(lifted)
    [*_, (_, tensor)] = [(key, value) for key, value in lifted.lifting.named_parameters()
                         if ending in key.removeprefix('layers.0.')]
    tensor += 0.1
    wanted = flat.double()(window[:, :, 2])
    assert largest_difference(lifted(window.flatten(1, 2)), wanted) > 1e-3


@pytest.mark.parametrize('name, how', [(name, how) for name in ENCODERS for how in (*EXACT, *OTHERS)
                                       if name != 'swin' or how not in ('plane_cycle', 'joint')])
@torch.no_grad()
def test_it_can_tell_the_slice_above_from_the_one_below(name, how):
    encoder = build(name, how).double()
    for parameter in encoder.lifting.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, dtype=torch.float64)
    window = window_of(encoder)[:, 0]
    assert largest_difference(encoder(window), encoder(window[:, [0, 3, 2, 1, 4]])) > 1e-5


@pytest.mark.parametrize('model', ['vit_base_patch16_rpn_224', 'eva02_enormous_patch14_clip_224'])
def test_norms_behind_attention_are_refused_where_it_is_used_on_its_own(model):
    sizes = SIZES | dict(img_size=28) if 'eva' in model else SIZES | dict(img_size=32)
    for how in ('divided', 'adapter_attention', 'adapter_conv_pair'):
        with pytest.raises(UserError, match=rf'lifting {how}: .* has no attention that can be used over depth'):
            InflatedViT(model, lifting=how, img_size=sizes['img_size'],
                        sizes={key: sizes[key] for key in SIZES}, out_indices=(0, 1, 2, 3))


def test_keys_that_several_queries_share_are_refused():
    [(block, _), *_] = blocks_of(build('eva').model)
    assert lifting.attention_of(block) is block.attn
    block.attn.num_kv_heads = 1
    with pytest.raises(UserError, match='EvaBlock has no attention that can be used over depth'):
        lifting.attention_of(block)


@pytest.mark.parametrize('name', VITS)
@torch.no_grad()
def test_a_tubelet_of_the_whole_window_is_the_inflated_kernel(name):
    kernel, joint = build(name, channels=2), build(name, 'joint(5)', channels=2)
    joint.model.load_state_dict(kernel.model.state_dict())
    window = window_of(kernel).flatten(1, 2)
    assert largest_difference(joint.double()(window), kernel.double()(window)) < 1e-12


@pytest.mark.parametrize('slices, tubelet, padding, planes', [
    (5, 1, (0, 0), 5), (5, 2, (1, 0), 3), (5, 3, (2, 2), 3), (5, 5, (0, 0), 1), (4, 2, (1, 1), 3),
    (1, 2, (1, 0), 1)])
def test_a_tubelet_has_the_centre_slice_centred(slices, tubelet, padding, planes):
    encoder = build('vit', f'joint({tubelet})', slices)
    assert encoder.padding == padding and encoder.lifting.planes == planes
    window = torch.arange(slices).repeat_interleave(32 * 32).reshape(1, slices, 32, 32)
    tubelets = encoder._split_planes(window)[:, :, 0, 0]
    assert tubelets[encoder.lifting.centre, tubelet // 2] == slices // 2
    assert tubelets.flatten().tolist() == [0] * padding[0] + list(range(slices)) + [slices - 1] * padding[1]


@pytest.mark.parametrize('name, half', [('eva', False), ('dinov3', True)])
@torch.no_grad()
def test_rotary_positions_in_3d_turn_a_third_of_the_pairs_by_plane(name, half):
    """Pair by pair: what a patch down or to the right did to it, a slice does; others turn as in the 2D model."""
    side = ENCODERS[name]['img_size'] // 2
    encoder = build(name, 'joint_rotary', 3, img_size=(3 * side, 5 * side))
    rope, [joint] = encoder.model.rope.get_embed(shape=(3, 5)).double(), [encoder.lifting]
    turned = joint.turn(rope).reshape(3, 3, 5, 2, 12)
    for pair in range(6):
        of_axis, channel = pair % 3, pair if half else 2 * pair
        sine, cosine = rope.reshape(3, 5, 2, 12).movedim(2, 0)[..., channel]
        turns = torch.complex(cosine, sine)
        step = turns[1, 0] / turns[0, 0] if pair < 3 else turns[0, 1] / turns[0, 0]
        assert (step - 1).abs() > 1e-3
        for other in (channel, channel + (6 if half else 1)):
            found = torch.complex(turned[..., 1, other], turned[..., 0, other])
            for plane in range(3):
                wanted = (step ** (plane - 1)).expand(3, 5) if of_axis == 2 else turns
                torch.testing.assert_close(found[plane], wanted)
    far = window_of(encoder.double())
    near = far.flip(2)  # the centre slice is the same one
    changed = [a - b for a, b in zip(encoder(far.flatten(1, 2)), encoder(near.flatten(1, 2)), strict=True)]
    plain = build(name, 'joint', 3, img_size=(3 * side, 5 * side)).double()
    same = [a - b for a, b in zip(plain(far.flatten(1, 2)), plain(near.flatten(1, 2)), strict=True)]
    assert all(each.abs().max() > 1e-5 for each in changed) and all(each.abs().max() < 1e-9 for each in same)


@torch.no_grad()
def test_joint_attention_has_all_tokens_in_one_sequence():
    """BEiT, whose biases are of two places in a slice whatever the planes, by a mask over repeated positions."""
    encoder = build('beit', 'joint', slices=3).double()
    attention, tokens = encoder.model.blocks[0].attn, 4  # of a plane, beside the class token
    place = [0] * 3 + list(range(1, tokens + 1)) * 3
    table, index = attention.relative_position_bias_table, attention.relative_position_index
    bias = torch.stack([torch.stack([table[index[a, b]] for b in place]) for a in place]).permute(2, 0, 1)
    torch.testing.assert_close(attention._get_rel_pos_bias()[0], bias, rtol=0, atol=0)
    far = window_of(encoder)
    near = far.clone()
    near[:, :, 0] += 1.0
    changed = [a - b for a, b in zip(encoder(far.flatten(1, 2)), encoder(near.flatten(1, 2)), strict=True)]
    assert all((each.abs().amax((1, 2, 3)) > 1e-6).all() for each in changed)  # the first block reaches all planes


def test_rows_between_are_timms_within_the_grid_and_its_border_beyond():
    attention = build('beit', img_size=(48, 64)).model.blocks[0].attn
    assert torch.equal(rows_between((3, 4), 3, 4), attention.relative_position_index)
    rows = rows_between((3, 4), 5, 2)
    assert rows.shape == (11, 11) and rows.max() == len(attention.relative_position_bias_table) - 1
    at = {(row, column): 1 + row * 2 + column for row in range(5) for column in range(2)}
    same = attention.relative_position_index
    assert rows[at[4, 1], at[0, 0]] == rows[at[2, 1], at[0, 0]] == same[1 + 2 * 4 + 1, 1]  # 4 rows away: 2 at most


@pytest.mark.parametrize('name', VITS)
@torch.no_grad()
def test_plane_cycle_is_each_block_on_one_plane_at_a_time(name):
    """The published operator (github.com/HINTLab/PlaneCycle at 3ab47e3), plane by plane in loops."""
    side = ENCODERS[name]['img_size'] // 2
    encoder = build(name, 'plane_cycle', 3, img_size=(2 * side, 3 * side)).double()
    model, window = encoder.model, torch.randn(1, 3, 2 * side, 3 * side, dtype=torch.float64)
    embedded = model._pos_embed(model.patch_embed(window[0][:, None])) if hasattr(model, '_pos_embed') else None
    if embedded is None:  # BEiT has no method for it, and no absolute positions
        patches = model.patch_embed(window[0][:, None])
        embedded = torch.cat([model.cls_token.expand(3, -1, -1), patches], 1)
    tokens = model.norm_pre(embedded[0] if isinstance(embedded, tuple) else embedded) if hasattr(
        model, 'norm_pre') else embedded
    prefix, (height, width) = model.num_prefix_tokens, model.patch_embed.grid_size
    volume, others = tokens[:, prefix:].reshape(3, height, width, -1), tokens[:, :prefix]
    for number, block in enumerate(model.blocks.children()):
        axis = (0, 1, 2, 0)[number]
        planes = [volume.select(axis, at) for at in range(volume.shape[axis])]
        pooled = adaptive_avg_pool1d(others.permute(1, 2, 0), len(planes)).permute(2, 0, 1)
        context, shape = {}, planes[0].shape[:2]
        if getattr(model, 'rope', None) is not None:
            rope = copy.deepcopy(model.rope)
            rope.update_feat_shape(shape)
            context['rope'] = rope.get_embed(shape=shape)
        done = [block(torch.cat([first, plane.flatten(0, 1)])[None], **context)[0]
                for first, plane in zip(pooled, planes, strict=True)]
        others = torch.stack([each[:prefix] for each in done])
        volume = torch.stack([each[prefix:].reshape(*shape, -1) for each in done], axis)
        wanted = volume[1].permute(2, 0, 1)
        assert (encoder(window)[number][0] - wanted).abs().max() < 1e-12


@pytest.mark.parametrize('name', ENCODERS)
@torch.no_grad()
def test_attention_without_positions_is_timms(name):
    [_, (block, _), *_] = blocks_of(build(name).model)
    attention = copy.deepcopy(block.attn).double()
    attention.relative_position_bias_table = None
    attention._get_rel_pos_bias = lambda: 0.0
    x = torch.randn(2, 3, 7, 24, dtype=torch.float64)
    wanted = attention(x.flatten(0, 1)).unflatten(0, (2, 3))
    for attention.fused_attn in (True, False):
        assert (attend(attention, x) - wanted).abs().max() < 1e-12
    attention.train().attn_drop.p = 0.5  # its dropout too
    for attention.fused_attn in (True, False):
        assert (attend(attention, x) - wanted).abs().max() > 1e-3
    attention.proj_drop.p, dropped = 0.5, []
    for work in (lambda: attention(x.flatten(0, 1)).unflatten(0, (2, 3)), lambda: attend(attention, x)):
        torch.manual_seed(4)
        dropped.append(work())
    torch.testing.assert_close(*dropped)


def convolve_planes(layer, x: torch.Tensor) -> torch.Tensor:
    """A convolutional adapter on a window's tokens, plane by plane: (D, T, C) -> the same."""
    first, patches = x[:, :layer.prefix], x[:, layer.prefix:]
    inner = layer.down(layer.norm(patches))
    taps = layer.conv.weight.unbind(-1)  # from the plane before, this one, the plane behind
    done = []
    for plane in range(len(x)):
        total = layer.conv.bias
        for tap, at in zip(taps, (plane - 1, plane, plane + 1), strict=True):
            if 0 <= at < len(x):
                total = total + (inner[at] @ tap.T if layer.dense else inner[at] * tap[:, 0])
        done.append(layer.up(gelu(total) if layer.dense else total))
    return torch.cat([first, patches + torch.stack(done)], 1)


def by_its_definition(how: str, encoder: InflatedViT, number: int, x: torch.Tensor) -> torch.Tensor:
    """A block of a window as the papers have it, one position or plane after another: (D, T, C) -> the same."""
    block, layer = list(encoder.model.blocks.children())[number], encoder.lifting.layers[number]
    if how == 'adapter_conv':
        return block(convolve_planes(layer, x))
    if how == 'adapter_conv_pair':
        x = convolve_planes(layer[0], x)
        x = convolve_planes(layer[1], x + block.attn(block.norm1(x)))
        return x + block.mlp(block.norm2(x))
    if number == 0:
        x = x + encoder.lifting.pos_embed[:, None]
    found = []
    for place in range(x.shape[1]):
        over_depth = x[:, place][None]
        found.append(layer.last(layer.attention(layer.norm(over_depth))) if how == 'divided' else
                     layer(block.attn(block.norm1(over_depth))))
    return block(x + torch.cat(found).movedim(0, 1))


@pytest.mark.parametrize('how', ['divided', 'adapter_conv', 'adapter_conv_pair', 'adapter_attention'])
@torch.no_grad()
def test_each_block_is_what_its_paper_has(how):
    encoder = build('vit', how, slices=3).double()
    assert how != 'adapter_conv' or not any(layer.down.bias.any() for layer in encoder.lifting.layers)
    if how == 'divided':  # what it starts from
        for (block, _), layer in zip(blocks_of(encoder.model), encoder.lifting.layers, strict=True):
            for copied, own in ((layer.attention, block.attn), (layer.norm, block.norm1)):
                state = own.state_dict()
                assert copied.state_dict().keys() == state.keys()
                assert all(torch.equal(value, state[key]) for key, value in copied.state_dict().items())
    for parameter in encoder.lifting.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, dtype=torch.float64)
    for number in (0, 1):
        x = torch.randn(2, 3, 5, 24, dtype=torch.float64)
        block = list(encoder.model.blocks.children())[number]
        got = encoder.lifting.run(number, block, x)
        wanted = torch.stack([by_its_definition(how, encoder, number, one) for one in x])
        assert (got - wanted).abs().max() < 1e-12
        assert (got - lifting.run_block(block, x)).abs().max() > 1e-2


@torch.no_grad()
def test_late_attention_is_that_of_the_centre_over_the_slices():
    encoder = build('vit', 'late_attention', slices=3).double()
    for parameter in encoder.lifting.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, dtype=torch.float64)
    maps, layer = torch.randn(1, 3, 24, 2, 2, dtype=torch.float64), encoder.lifting.layers[1]
    got = encoder.lifting.fuse(1, maps)
    for row, column in itertools.product(range(2), range(2)):
        slices = layer.norm(maps[0, :, :, row, column]) + encoder.lifting.pos_embed[1]
        keys, values = layer.both(slices).chunk(2, -1)
        weights = (keys @ layer.query(slices[1]) / 24 ** 0.5).softmax(0)
        wanted = maps[0, 1, :, row, column] + layer.last(weights @ values)
        torch.testing.assert_close(got[0, :, row, column], wanted)


def bytes_kept(encoder: InflatedViT, window: torch.Tensor) -> int:
    """For the backward pass."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(window)
    return sum(kept)


@pytest.mark.parametrize('name', ['beit', 'swin'])
@torch.no_grad()
def test_adapters_within_the_blocks_leave_all_else_of_them(name):
    flat = build(name, slices=1)
    lifted = start_from(build(name, 'adapter_conv_pair'), flat)
    for key, parameter in lifted.lifting.named_parameters():
        if '.up.' in key:
            parameter.zero_()
    window = window_of(lifted)
    planes = flat.double()(window.movedim(2, 1).flatten(0, 1))
    wanted = [maps.unflatten(0, (-1, 5))[:, 2] for maps in planes]
    assert largest_difference(lifted.double()(window.flatten(1, 2)), wanted) < 1e-12


@pytest.mark.parametrize('name', ['beit', 'swin'])
@pytest.mark.parametrize('how', ['adapter_conv', 'adapter_conv_pair'])
def test_paths_are_dropped_by_slice(name, how):
    encoder, seen = build(name, how, drop_path_rate=0.5).train(), []
    for module in encoder.model.modules():
        if isinstance(module, DropPath):
            module.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    encoder(window_of(encoder, batch=2).float().flatten(1, 2))
    assert set(seen) == {2 * 5}


@pytest.mark.parametrize('name, how', [*(('beit', how) for how in (*EXACT, *OTHERS, 'joint(2)')),
                                       *(('swin', how) for how in IN_SWIN), ('dinov3', 'joint_rotary')])
def test_it_trains_whatever_is_done_to_compute_it(name, how):
    """Every parameter gets a gradient, the same with activation checkpointing; copies and checkpoints hold it."""
    encoder = build(name, how, drop_path_rate=0.1).train()
    for parameter in encoder.lifting.parameters():  # at the start zeros hide what is before them
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    window = window_of(encoder).float().flatten(1, 2)

    def gradients(encoder: InflatedViT) -> dict[str, torch.Tensor]:
        encoder.zero_grad()
        torch.manual_seed(2)
        sum(level.square().mean() for level in encoder(window)).backward()
        return {key: parameter.grad.clone() for key, parameter in encoder.named_parameters()}

    found = gradients(encoder)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())
    again = build(name, how, drop_path_rate=0.1, with_cp=True).train()
    assert again.load_state_dict(encoder.state_dict()) and gradients(again).keys() == found.keys()
    for key, gradient in gradients(again).items():
        torch.testing.assert_close(gradient, found[key])
    assert bytes_kept(again, window) < bytes_kept(encoder, window)
    twin = copy.deepcopy(encoder).eval()
    encoder.eval()
    with torch.no_grad():
        before = encoder(window)
        for parameter in encoder.parameters():
            parameter.zero_()
        assert largest_difference(twin(window), before) == 0  # nothing of it is the original's
        with torch.autocast('cpu', torch.bfloat16):
            assert largest_difference(twin(window), before) < 0.1 * max(float(each.abs().max()) for each in before)


@pytest.mark.parametrize('name, how, tuning', [
    ('beit', 'divided', 'lora(2)'), ('beit', 'plane_cycle', 'full'), ('swin', 'divided', 'full'),
    ('dinov3', 'joint_rotary', 'full')])
def test_all_of_it_is_compiled(name, how, tuning):
    encoder = build(name, how, tuning=tuning).train()
    window = window_of(encoder).float().flatten(1, 2)
    compiled = torch.compile(encoder.forward, backend='eager', fullgraph=True, dynamic=False)
    with torch.no_grad():
        assert largest_difference(compiled(window), encoder(window)) == 0


@pytest.mark.parametrize('how, tuning', [('divided', 'lora(2)'), *(
    pytest.param(how, 'full', marks=pytest.mark.skipif('EVERY_LIFTING' not in os.environ,
                                                       reason='takes minutes; EVERY_LIFTING=1 runs it'))
    for how in (*EXACT[1:], *OTHERS, 'joint(2)'))])
def test_a_killed_run_ends_as_if_it_had_not_been_and_two_have_its_losses(how, tuning, prepared, tmp_path):
    options = children.options(prepared, steps=6, batch=4, checkpoint_interval=2, lifting=how, tuning=tuning)

    def train(name: str, **settings) -> tuple[dict, list[float]]:
        work = tmp_path / name
        for process in [children.start(children.train, work, options, **settings)] if name != 'shared' else (
                children.start_ranks(2, children.train, work, options, 'pytorch')):
            process.join(200)
        [*_, log] = sorted(work.glob('*/vis_data/scalars.json'))
        losses = [row['loss'] for row in map(json.loads, log.read_text().splitlines()) if 'loss' in row]
        last = work / 'iter_6.pth'
        return torch.load(last, weights_only=True)['state_dict'] if last.exists() else {}, losses

    wanted, losses = train('alone')
    assert not train('killed', hooks=[children.Choke(4, 100)])[0]  # a write that is cut off kills it
    resumed, _ = train('killed')
    assert all(torch.equal(resumed[key], value) for key, value in wanted.items()) and len(losses) == 6
    assert train('shared')[1] == pytest.approx(losses, rel=2e-5)


def test_what_does_not_fit_is_one_line():
    swin = dict(model='swin_base_patch4_window7_224', img_size=56, drop_path_rate=0.0,
                sizes=dict(embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4)))
    for how in ('joint', 'joint_rotary', 'plane_cycle'):
        with pytest.raises(UserError, match=f'{how}: the positions of this model are of its own grid alone'):
            InflatedSwin(lifting=how, **swin)
    with torch.no_grad():  # a stage that is not tapped is not there
        assert InflatedSwin(lifting='divided', **swin, out_indices=(0, 1, 2, 2))(torch.randn(1, 5, 56, 56))
    for kind, model, how in ((InflatedSwin, 'swinv2_cr_tiny_224', 'divided'),
                             (InflatedViT, 'convit_tiny', 'adapter_conv')):  # ConViT's class token comes late
        with pytest.raises(UserError, match=f"'{model}' has no such blocks; choose `late`, or another"):
            kind(model, lifting=how, img_size=224)
    for inflation in ('average', 'separable'):
        with pytest.raises(UserError, match=f"'{inflation}' is for a kernel that spans several slices, and with"):
            InflatedViT(**ENCODERS['vit'], lifting='late', inflation=inflation, source='x.pth')
        assert build('vit', 'joint(2)', inflation=inflation).kernel_slices == 2
    second = dict(swin, model='swinv2_tiny_window8_256', img_size=64)
    lifted, flat = (InflatedSwin(slices=slices, lifting=how, **second).eval()
                    for slices, how in ((3, 'adapter_conv'), (1, 'kernel')))
    lifted.model.load_state_dict(flat.model.state_dict())
    window = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert largest_difference(lifted(window), flat(window[:, 1:2])) < 1e-5
    with pytest.raises(UserError, match='lifting divided: SwinTransformerV2Block has no attention that can be'):
        InflatedSwin(lifting='divided', **second)
    for how, settings, why in (('joint_rotary', dict(model='vit_small_patch16_224'), 'has no rotary positions'),
                               ('joint_rotary(2)', ENCODERS['eva'] | dict(sizes=dict(SIZES, num_heads=3)),
                                r'heads of 8 channels have too few pairs for three axes'),
                               ('joint_rotary', ENCODERS['dinov3'] | dict(img_size=(16, 64)),
                                r'of 1 x 4 patches there is no step to the next row')):
        with pytest.raises(UserError, match=why):
            InflatedViT(lifting=how, out_indices=(0, 1, 2, 3), **settings)
    flat, late = InflatedSwin(slices=1, **swin), InflatedSwin(slices=3, lifting='late', **swin)
    late.load_state_dict(flat.state_dict(), strict=False)
    window = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        assert largest_difference(late.eval()(window), flat.eval()(window[:, 1:2])) < 1e-5
    for model, why in (('vit_relpos_small_patch16_224', 'RelPosBlock has no attention that can be used'),
                       ('vit_srelpos_small_patch16_224', 'are of its own grid alone'),
                       ('vit_base_patch16_rope_mixed_224', 'are of its own grid alone')):
        for how in ('joint', 'plane_cycle'):
            with pytest.raises(UserError, match=why):
                InflatedViT(model, lifting=how, img_size=32, sizes=SIZES, out_indices=(0, 1, 2, 3))
    for wrong, why in (('divide', "unknown lifting 'divide'; did you mean 'divided'"), ('joint(0)', 'at least 1'),
                       ('joint(1.5)', 'whole'), ('late(2)', 'takes no number')):
        with pytest.raises(UserError, match=why):
            parse_lifting(wrong)


@pytest.mark.parametrize('options, fault', [
    (dict(lifting='divided', neighbour_lr=0.1), 'neighbour_lr=0.1: is for the lifting `kernel`, and not'),
    (dict(inflation='separable', neighbour_lr=0.1), 'inflation separable does not train the kernel'),
    (dict(lifting='late(2)'), 'experiment.lifting: lifting .*takes no number'),
    (dict(tuning='loro'), "experiment.tuning: unknown tuning 'loro'; did you mean 'lora'")])
def test_options_that_exclude_each_other_are_one_line(prepared, options, fault):
    with pytest.raises(UserError, match=fault):
        load_config(children.CONFIG, children.options(prepared, **options))


@pytest.mark.parametrize('key, value', [('lifting', 'late'), ('tuning', 'frozen')])
def test_an_encoder_of_another_kind_takes_none(prepared, key, value):
    values = {f'experiment.{name}': each for name, each in {
        'data_root': str(prepared), 'source': None, key: value}.items()}
    with pytest.raises(UserError, match=f'experiment.{key}={value}: VideoSwin is no encoder'):
        load_config(REPO / 'configs/videoswin_centering_phantom.py', values)


def test_the_certificate_of_a_lifting(tmp_path):
    flat = build('beit', slices=1, channels=3)
    path = tmp_path / 'source.pth'
    torch.save(dict(model=flat.model.state_dict()), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmseg_plugins.certificate.infer_sizes', lambda *_: ENCODERS['beit']['sizes'])
        made = {how: certify(build_encoder(path, 'beit', 5, 2, 'centering', 32, how), path, 'beit', 32)
                for how in ('divided', 'plane_cycle', 'joint(5)')}
    assert made['divided'].centre == 0 and made['divided'].added == 4 * (5 * 24 * 24 + 6 * 24) + 5 * 24
    assert made['plane_cycle'].centre > 1e-3 and made['plane_cycle'].added == 0
    assert made['joint(5)'].centre < 1e-12 and made['joint(5)'].kernel_difference < 1e-6


def test_the_certificates_of_all_are_one_page(tmp_path, monkeypatch, capsys):
    path, page = tmp_path / 'source.pth', tmp_path / 'page.md'
    torch.save(dict(model=build('beit', slices=1, channels=3).model.state_dict()), path)
    monkeypatch.setattr('mmseg_plugins.certificate.infer_sizes', lambda *_: ENCODERS['beit']['sizes'])
    monkeypatch.setattr(certificates, 'OTHERS', {'ViT': 'test_vit'})
    monkeypatch.setattr(sys, 'argv', f'certificates.py {path} --encoder beit --img-size 32 --out {page}'.split())
    certificates.main()
    logging.disable(logging.NOTSET)
    table, others = ({row.split(' | ')[0].strip('| '): row.rstrip(' |').split(' | ') for row in half.splitlines()
                      if row.startswith('|')} for half in page.read_text().split('## Other encoders'))
    assert set(LIFTINGS) - {'joint_rotary'} < set(table) and capsys.readouterr().out == f'{page}\n'
    assert set(others) == {*table, 'joint_rotary'} and others['joint_rotary'][1] == '—'
    assert all(others[how][1] == '0' for how in EXACT) and all(float(others[how][1]) > 1e-3 for how in OTHERS)
    assert 'Not here: lifting joint_rotary: this model has no rotary positions' in page.read_text()
    assert all(table[how][1:4] == ['0', '0', '0'] for how in EXACT)
    assert all(float(table[how][3]) > 1e-3 for how in OTHERS)


def test_one_more_takes_one_class():
    example = textwrap.dedent(inspect.getdoc(lifting).split("`joint(2)`:\n")[1])
    try:
        exec(example, vars(lifting) | dict(torch=torch))
        encoder, flat = build('vit', 'shifted', 3), build('vit', slices=1)
        start_from(encoder, flat)
        window = window_of(encoder).float()
        window[:, :, :] = window[:, :, :1]  # alike, so that nothing is lost by taking from the slice before
        with torch.no_grad():
            got, wanted = encoder(window.flatten(1, 2)), flat(window[:, :, 0])
        assert largest_difference(got, wanted) < 1e-5
    finally:
        LIFTINGS.pop('shifted', None)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')

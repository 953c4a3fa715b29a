"""Tuning: what is frozen does not move, what is trained does, and at which rate."""

import copy
import re

import children
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmseg_plugins.building import build_runner
from mmseg_plugins.computed import ComputedLinear, merged_state
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config, prepare_for_device, read_config
from mmseg_plugins.models import InflatedSwin, InflatedViT
from mmseg_plugins.tuning import TUNINGS, register_tuning, train_only

SIZES = dict(embed_dim=24, depth=3, num_heads=2)
MODELS = {'vit': dict(model='vit_small_patch16_224', img_size=32, sizes=SIZES),
          'beit': dict(model='beit_base_patch16_224', img_size=32, sizes=SIZES | dict(init_values=0.5)),
          'eva': dict(model='eva02_tiny_patch14_224', img_size=28, sizes=SIZES)}
KERNEL = 'backbone.model.patch_embed.proj.weight'


class Network(nn.Module):
    """An encoder, and a decoder of one layer."""

    def __init__(self, name: str = 'beit', tuning: str = 'full', slices: int = 3, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = InflatedViT(**{**MODELS[name], 'slices': slices, 'tuning': tuning, 'source': 'made here',
                                       'out_indices': (0, 1, 2, 2), **settings})
        self.backbone.load_report = 'loaded'  # below
        generator = torch.Generator().manual_seed(1)
        for parameter in self.backbone.model.parameters():  # so that none starts at zero
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        self.backbone.init_weights()
        torch.manual_seed(3)
        self.decode_head = nn.Conv2d(24, 2, 1)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return sum(self.decode_head(level) for level in self.backbone(window))

    def window(self) -> torch.Tensor:
        side = self.backbone.img_size
        return torch.randn(2, self.backbone.slices, side, side, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def build_optimizer(network: Network, weight_decay: float = 0.0, **paramwise):
    return build_optim_wrapper(network, dict(
        type='OptimWrapper', constructor='RatesBesideDecay', paramwise_cfg=paramwise,
        optimizer=dict(type='AdamW', lr=1e-2, weight_decay=weight_decay)))


def moved(network: Network) -> set[str]:
    """The parameters that a step changes."""
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = build_optimizer(network)
    optimizer.update_params(network(network.window()).square().mean())
    return {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('lifting', ['kernel', 'divided'])
def test_what_is_frozen_stays_and_what_is_trained_moves(name, lifting):
    def changed(tuning: str, **settings) -> tuple[set[str], set[str]]:
        network = Network(name, tuning, lifting=lifting, **settings)
        if lifting == 'divided':  # zeros hide what is before them from its first gradient
            for parameter in network.backbone.lifting.parameters():
                parameter.data += 0.1
        names = {each for each, _ in network.named_parameters()}
        return moved(network), names

    always = {'decode_head.weight', 'decode_head.bias'} | ({KERNEL} if lifting == 'kernel' else set())
    full, names = changed('full')
    assert full == names
    always |= {each for each in names if each.startswith('backbone.lifting.')}
    assert changed('frozen')[0] == always
    bitfit, _ = changed('bitfit')
    assert bitfit == always | {each for each in names if each.endswith('bias')}
    assert any('q_bias' in each for each in bitfit) == (name != 'vit')
    lora, names = changed('lora(2)')
    # the first step moves what starts at zero alone: the other factor's gradient is a product with it
    assert lora == always | {each for each in names if 'low_rank' in each and each.endswith('up')}
    assert changed('layer_decay')[0] == changed('two_group')[0] == full


def test_of_one_slice_the_kernel_is_no_depth_and_trained_where_it_is_not_the_sources():
    head = {'decode_head.weight', 'decode_head.bias'}
    assert moved(Network(tuning='frozen', slices=1)) == head
    for random in (dict(inflation='random'), dict(source=None), dict(source=None, lifting='late')):
        network = Network(tuning='frozen', slices=1, **random)
        start = {KERNEL, KERNEL.replace('weight', 'bias')}
        assert {name for name in moved(network) if '.lifting.' not in name} == head | start


@pytest.mark.parametrize('name', MODELS)
def test_low_rank_matrices_start_at_nothing_reach_every_layer_and_can_be_merged(name):
    plain, network = Network(name).eval(), Network(name, 'lora(2)').eval()
    window = network.window()
    with torch.no_grad():
        assert torch.equal(network(window), plain(window))
        layers = [layer for layer in network.modules() if isinstance(layer, ComputedLinear)]
        assert len(layers) == 3 * 4  # q, k and v, projection, two of the MLP
        before = plain(window)
        for layer in layers:
            layer.part.up += 0.1
            after = network(window)
            assert not torch.equal(after, before)  # BEiT would pass over a layer that is wrapped
            before = after
        twin = copy.deepcopy(network)
        layers[0].part.up += 0.1
        assert torch.equal(twin(window), before)
        plain.load_state_dict(merged_state(network))
        torch.testing.assert_close(plain(window), network(window))
        again = Network(name, 'lora(2)').eval()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(window), network(window))
    assert sum(each.numel() for each in network.backbone.low_rank.parameters()) == sum(
        2 * (layer.in_features + layer.out_features) for layer in layers)


def test_rates_are_those_of_the_layer_and_of_the_part():
    def rates(tuning: str, lifting: str = 'kernel', inflation: str = 'centering', **paramwise) -> dict[str, float]:
        network = Network('vit', tuning, lifting=lifting, inflation=inflation)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        groups = build_optimizer(network, **paramwise).optimizer.param_groups
        return {names[id(parameter)]: group['lr'] / 1e-2 for group in groups for parameter in group['params']}

    decayed = rates('layer_decay(0.5)', custom_keys=dict(decode_head=dict(lr_mult=10.0)))
    assert decayed[KERNEL] == decayed['backbone.model.cls_token'] == 0.5 ** 4
    assert [decayed[f'backbone.model.blocks.{block}.attn.qkv.weight'] for block in range(3)] == [0.125, 0.25, 0.5]
    assert decayed['decode_head.weight'] == 10.0
    grouped = rates('two_group(4)', custom_keys={'backbone': dict(lr_mult=2.0)})
    assert grouped[KERNEL] == 0.5 and grouped['decode_head.weight'] == 1.0
    biases = rates('two_group(4)', bias_lr_mult=2.0)
    assert biases['backbone.model.patch_embed.proj.bias'] == 0.5 and biases[KERNEL] == 0.25
    assert set(rates('full').values()) == {1.0}
    for part, factor, raised in (('low_rank', 10.0, rates('lora')),
                                 (r'lifting\..+\.conv', 10.0, rates('full', 'adapter_conv')),
                                 ('lifting', 50.0, rates('two_group(2)', 'late')),
                                 ('form', 50.0, rates('full', inflation='separable'))):
        own = {name for name in raised if re.match(rf'backbone\.{part}\.', name)}
        assert own == {name for name, rate in raised.items() if rate == factor} != set()


def test_a_raised_rate_does_not_raise_what_decay_takes_off_in_a_step():
    network = Network('vit', 'two_group(2)', lifting='late')
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    taken = {names[id(parameter)]: group['lr'] * group['weight_decay']
             for group in build_optimizer(network, 0.1).optimizer.param_groups
             for parameter in group['params']}
    shares = [taken[name] for name in taken if name.startswith('backbone.lifting.')]
    assert shares == pytest.approx([1e-3] * 4) and taken['decode_head.weight'] == pytest.approx(1e-3)
    assert taken[KERNEL] == pytest.approx(5e-4)  # as BEiT's layer decay has it


@pytest.mark.parametrize('model, own', [('vit_small_patch14_reg4_dinov2', 'reg_token'),
                                        ('vit_small_patch16_rope_mixed_224', 'rope.freqs')])
def test_what_is_beside_the_blocks_has_the_embeddings_rate_and_the_last_block_the_decay(model, own):
    factors = InflatedViT(model, slices=3, tuning='layer_decay(0.5)', img_size=224, sizes=SIZES,
                          out_indices=(0, 1, 2, 2)).rate_factors
    assert factors['model.patch_embed.proj.weight'] == factors[f'model.{own}'] == 0.5 ** 4
    assert [factors[f'model.blocks.{block}.norm1.weight'] for block in range(3)] == [0.125, 0.25, 0.5]


@pytest.mark.parametrize('how', ['divided', 'adapter_attention', 'joint', 'late_attention'])
def test_what_tells_slices_apart_is_free_of_weight_decay_like_other_positions(how):
    cfg = read_config(children.CONFIG)
    network = Network('vit', lifting=how)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = build_optim_wrapper(network, cfg.optim_wrapper).optimizer.param_groups
    decays = {names[id(parameter)]: group['weight_decay'] for group in groups for parameter in group['params']}
    told = {name for name in decays if name.startswith('backbone.lifting.pos_embed')}
    assert told and {decays[name] for name in told} == {0.0} and decays['decode_head.weight'] == 0.05


def test_rates_that_would_not_reach_the_optimizer_are_refused(prepared, tmp_path):
    cfg = load_config(children.CONFIG, children.options(prepared, tuning='layer_decay') | {
        'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'})
    prepare_for_device(cfg, 'none')
    cfg.work_dir = str(tmp_path)
    with pytest.raises(UserError, match='which need optim_wrapper.constructor=RatesBesideDecay'):
        build_runner(cfg)


def test_of_a_swin_the_layers_are_its_blocks_and_what_is_fresh_is_trained():
    sizes = dict(embed_dim=12, depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4))
    swin = InflatedSwin(slices=3, tuning='frozen', img_size=56, sizes=sizes)
    trained = {name for name, parameter in swin.named_parameters() if parameter.requires_grad}
    assert trained == {'model.patch_embed.proj.weight', 'model.patch_embed.proj.bias'} | {
        name for name, _ in swin.named_parameters() if name.startswith('norms.')}
    factors = InflatedSwin(slices=3, tuning='layer_decay(0.5)', img_size=56, sizes=sizes).rate_factors
    stages = [factors[f'model.layers.{stage}.blocks.0.attn.qkv.weight'] for stage in range(4)]
    assert stages == sorted(stages) and len(set(stages)) == 4 and max(factors.values()) == 0.5
    assert min(factors.values()) == factors['model.patch_embed.proj.weight']


def test_one_more_takes_one_function():
    try:
        @register_tuning('norms')
        def norms(encoder):
            train_only(encoder, lambda name: 'norm' in name)
            return {}
        assert {name for name in moved(Network(tuning='norms')) if 'model' in name} == {
            name for name, _ in Network().named_parameters() if '.norm' in name and 'model' in name} | {KERNEL}
    finally:
        TUNINGS.pop('norms', None)

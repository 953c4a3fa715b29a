import pytest
import torch

from mmseg_plugins.computed import merged_state
from mmseg_plugins.errors import UserError
from mmseg_plugins.inflation import INFLATIONS, inflate_kernel, register_inflation
from mmseg_plugins.models import InflatedSwin, InflatedViT, VideoSwin

MINI_VIT = dict(img_size=32, out_indices=(0, 1, 1, 1),
                sizes=dict(patch_size=8, embed_dim=24, depth=2, num_heads=3))
MINI_SWIN = dict(img_size=56, drop_path_rate=0.0,
                 sizes=dict(embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4)))
ENCODERS = {
    'beit': (InflatedViT, dict(MINI_VIT, model='beit_base_patch16_224')),
    'vit': (InflatedViT, dict(MINI_VIT, model='vit_base_patch16_224')),
    'swin': (InflatedSwin, dict(MINI_SWIN, model='swin_base_patch4_window7_224')),
}


def build_pair(tmp_path, name, slices, channels, inflation, dtype=torch.float32):
    """A random 2D RGB encoder, saved as a source, and the 3D encoder inflated from it."""
    encoder, kwargs = ENCODERS[name]
    torch.manual_seed(0)
    flat = encoder(slices=1, channels=3, **kwargs).to(dtype)
    for parameter in flat.parameters():  # fresh position tables and biases are zero; make them count
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path / 'source.pth'
    torch.save({'model': flat.model.state_dict()}, path)
    deep = encoder(slices=slices, channels=channels, inflation=inflation, source=str(path),
                   **kwargs).to(dtype)
    deep.init_weights()
    if hasattr(flat, 'norms'):
        deep.norms.load_state_dict(flat.norms.state_dict())
    return flat.eval(), deep.eval()


@pytest.mark.parametrize('dtype, atol', [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize('slices, channels', [(5, 1), (4, 1), (3, 2), (1, 1)])
@pytest.mark.parametrize('name', ENCODERS)
@pytest.mark.parametrize('inflation', ['centering', 'average'])
def test_features_equal_the_2d_model(tmp_path, name, slices, channels, dtype, atol, inflation):
    """centering: features of the centre slice, whatever the neighbours hold; average: the mean slice."""
    flat, deep = build_pair(tmp_path, name, slices, channels, inflation, dtype)
    size = ENCODERS[name][1]['img_size']
    window = torch.randn(2, channels, slices, size, size, dtype=torch.float64)
    seen = window[:, :, slices // 2] if inflation == 'centering' else window.mean(2)
    gray = seen.mean(1, keepdim=True).expand(-1, 3, -1, -1)  # C channels are averaged, colour summed
    with torch.no_grad():
        wanted, got = flat(gray.to(dtype)), deep(window.flatten(1, 2).to(dtype))
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() < atol


@pytest.mark.parametrize('method', ['average', 'centering'])
@pytest.mark.parametrize('colours', [1, 3])
def test_kernel_sum_is_that_of_the_source(method, colours):
    weight = torch.randn(6, colours, 4, 4, dtype=torch.float64)
    kernel = inflate_kernel(weight, slices=5, channels=2, method=method)
    assert kernel.shape == (6, 2, 5, 4, 4)
    torch.testing.assert_close(kernel.sum((1, 2)), weight.sum(1), rtol=0, atol=1e-12)


def test_rank_pooling_weighs_slices_as_published_and_sees_nothing_that_is_the_same_in_all():
    weight = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    kernel = inflate_kernel(weight, slices=5, channels=2, method='arp')
    shares = kernel[:, 1] * 2 / weight.sum(1)[:, None]  # of the gray kernel, by slice
    wanted = torch.tensor([-0.74, 0.06, 0.26, 0.26, 0.16], dtype=torch.float64)
    torch.testing.assert_close(shares, wanted[:, None, None].expand_as(shares), rtol=0, atol=1e-12)
    for slices in (2, 9):
        assert inflate_kernel(weight, slices, 2, 'arp').sum(2).abs().max() < 1e-12
    with pytest.raises(UserError, match=r"inflation 'arp' of 1 slice\(s\) is zero at every weight"):
        inflate_kernel(weight, 1, 2, 'arp')


def test_kernels_are_those_of_the_paper():
    weight = torch.arange(2 * 3 * 2 * 2, dtype=torch.float64).reshape(2, 3, 2, 2)
    gray = weight.sum(1)
    centering = inflate_kernel(weight, 4, 2, 'centering')
    assert torch.equal(centering[:, 1, 2], gray / 2) and not centering[:, :, [0, 1, 3]].any()
    average = inflate_kernel(weight, 4, 2, 'average')
    assert all(torch.equal(average[:, c, s], gray / 8) for c in range(2) for s in range(4))


@pytest.mark.parametrize('slices, channels', [(5, 1), (4, 2), (1, 1)])
def test_depth_profiles_keep_the_sum_and_have_the_papers_methods_as_limits(slices, channels):
    weight = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    average, centering = (inflate_kernel(weight, slices, channels, m) for m in ('average', 'centering'))
    for method in ('triangular', 'gaussian', 'gaussian(0.3)', 'triangular(3)'):
        kernel = inflate_kernel(weight, slices, channels, method)
        torch.testing.assert_close(kernel.sum((1, 2)), weight.sum(1), rtol=0, atol=1e-12)
        depth = kernel.abs().sum((0, 1, 3, 4))
        assert depth.argmax() == slices // 2
    for method in ('triangular(1)', 'gaussian(0.01)'):
        torch.testing.assert_close(inflate_kernel(weight, slices, channels, method), centering, rtol=0, atol=1e-12)
    for method in ('triangular(1e9)', 'gaussian(1e9)'):
        torch.testing.assert_close(inflate_kernel(weight, slices, channels, method), average, rtol=0, atol=1e-7)


def test_repeat_is_average_times_slices_and_noise_spares_the_centre():
    weight = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    average, centering, repeat, noisy = (inflate_kernel(weight, 5, 2, method) for method in (
        'average', 'centering', 'repeat', 'centering_noise(0.1)'))
    torch.testing.assert_close(repeat, average * 5)
    assert torch.equal(noisy[:, :, 2], centering[:, :, 2])
    spread = (noisy - centering)[:, :, [0, 1, 3, 4]].std() / (weight.sum(1).std() / 2)
    assert 0.08 < spread < 0.12


@pytest.mark.parametrize('name', ENCODERS)
def test_a_separable_kernel_trains_its_profile_alone(tmp_path, name):
    flat, deep = build_pair(tmp_path, name, 3, 2, 'separable', torch.float64)
    size = ENCODERS[name][1]['img_size']
    window = torch.randn(2, 2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        wanted = flat(window[:, :, 1].mean(1, keepdim=True).expand(-1, 3, -1, -1))
    got = deep.train()(window.flatten(1, 2))
    assert max(float((a - b).detach().abs().max()) for a, b in zip(got, wanted, strict=True)) < 1e-12
    sum(level.square().mean() for level in got).backward()
    projection = deep.model.patch_embed.proj
    assert projection._parameters['weight'].grad is None and deep.form.profile.grad.all()
    with torch.no_grad():
        deep.form.profile += torch.randn_like(deep.form.profile)
        kernel = projection.weight.unflatten(1, (2, 3))
        gray = flat.model.patch_embed.proj.weight.sum(1) / 2
        for slice in range(3):
            share = deep.form.profile[:, slice, None, None]
            torch.testing.assert_close(kernel[:, 1, slice], share * gray)
        plain = ENCODERS[name][0](slices=3, channels=2, **ENCODERS[name][1]).double()
        plain.load_state_dict(merged_state(deep))
        again = build_pair(tmp_path, name, 3, 2, 'separable', torch.float64)[1]
        again.load_state_dict(deep.state_dict())
        seen = [encoder.eval()(window.flatten(1, 2)) for encoder in (deep, plain, again)]
    for others in seen[1:]:
        assert max(float((a - b).abs().max()) for a, b in zip(seen[0], others, strict=True)) < 1e-12
    with pytest.raises(UserError, match='a trained form, which VideoSwin does not take'):
        VideoSwin(inflation='separable')


@pytest.mark.parametrize('slices', range(1, 10))
def test_video_swin_decodes_the_position_of_the_labelled_slice(slices):
    sizes = dict(embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4), window_size=(1, 2, 2))  # no depth
    encoder = VideoSwin(slices=slices, img_size=32, sizes=sizes).eval()
    window = torch.randn(1, slices, 32, 32, requires_grad=True)
    sum(features.square().sum() for features in encoder(window)).backward()
    seen = window.grad.abs().amax((0, 2, 3)).nonzero().flatten().tolist()
    assert slices // 2 in seen and len(seen) <= 2


def test_the_number_of_a_trained_form_is_its_constructors(tmp_path, monkeypatch):
    monkeypatch.setitem(INFLATIONS, 'scaled', None)
    del INFLATIONS['scaled']

    @register_inflation('scaled')
    class Scaled(INFLATIONS['separable']):
        def __init__(self, embed_dim, slices, factor=2.0):
            super().__init__(embed_dim, slices)
            self.profile.data *= factor
    flat, deep = build_pair(tmp_path, 'vit', 3, 1, 'scaled(4)')
    for encoder in (deep, InflatedViT(slices=3, inflation='scaled(4)', **ENCODERS['vit'][1])):
        assert encoder.form.profile.unique().tolist() == [0, 4]


def test_the_prefix_of_timm_makes_no_other_swin():
    for prefix in ('', 'timm/'):
        encoder = InflatedSwin(f'{prefix}swin_base_patch4_window7_224', **MINI_SWIN)
        assert encoder.timm_sizes['always_partition']


def test_none_takes_the_kernel_as_it_is():
    weight = torch.randn(2, 3, 4, 4)
    assert torch.equal(inflate_kernel(weight, 1, 3, 'none')[:, :, 0], weight)
    with pytest.raises(UserError, match='needed .E, 1, P, P. and 1 slice'):
        inflate_kernel(weight, 1, 1, 'none')


def test_random_keeps_the_fresh_patch_embedding_and_loads_the_rest(tmp_path):
    flat, deep = build_pair(tmp_path, 'beit', 5, 1, 'random')
    assert torch.equal(deep.model.blocks[1].mlp.fc1.weight, flat.model.blocks[1].mlp.fc1.weight)
    assert sorted(deep.load_report.missing) == ['patch_embed.proj.bias', 'patch_embed.proj.weight']


def test_a_user_extends_the_registry_with_one_function():
    @register_inflation('first')
    def first(gray, slices, channels):
        kernel = gray.new_zeros(len(gray), channels, slices, *gray.shape[1:])
        kernel[:, :, 0] = gray[:, None] / channels
        return kernel
    try:
        weight = torch.randn(2, 3, 2, 2)
        assert torch.equal(inflate_kernel(weight, 3, 1, 'first')[:, 0, 0], weight.sum(1))
    finally:
        del INFLATIONS['first']


@pytest.mark.parametrize('weight, kwargs, message', [
    (torch.zeros(2, 4, 2, 2), {}, r'\(2, 4, 2, 2\).*\(E, 3, P, P\)'),
    (torch.zeros(2, 3, 2), {}, r'\(2, 3, 2\).*\(E, 3, P, P\)'),
    (torch.zeros(2, 3, 2, 2), dict(slices=0), 'slices=0'),
    (torch.zeros(2, 3, 2, 2), dict(method='centring'), 'did you mean .centering'),
    (torch.zeros(2, 3, 2, 2), dict(method='gaussian(wide)'), 'takes one number, sigma'),
    (torch.zeros(2, 3, 2, 2), dict(method='centering(2)'), 'takes no number'),
])
def test_errors_name_what_came_and_what_was_needed(weight, kwargs, message):
    with pytest.raises(UserError, match=message):
        inflate_kernel(weight, **{**dict(slices=5, channels=1, method='centering'), **kwargs})


def test_encoder_outputs_four_maps_and_trains_every_parameter():
    encoder = InflatedViT(slices=5, channels=2, with_cp=True, **MINI_VIT).train()
    maps = encoder(torch.randn(2, 10, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(2, 24, 4, 4)] * 4
    sum(m.sum() for m in maps).backward()
    # an unused parameter would break distributed training
    unused = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize('model', ['beit_base_patch16_223', 'resnet50'])
def test_unsuitable_models_are_one_line(model):
    with pytest.raises(UserError):
        InflatedViT(model=model, slices=5)

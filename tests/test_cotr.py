"""CoTr: the published size, every stage's shape, and where its attention samples."""

import math

import pytest
import torch
from conftest import REPO
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.utils.flop_counter import FlopCounterMode

from mmseg_plugins.building import build_model
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.models.baselines.cotr import CoTr, DeformableAttention, encode_positions, reference_points

MINI = dict(in_channels=2, out_channels=3, crop=(16, 32, 32), widths=(6, 12, 24), blocks=(2, 1, 1), layers=2,
            heads=3, points=2)
SHAPES = [(2, 3, 4), (1, 2, 3)]  # of two scales, no two axes alike


def random_attention(coordinates: str, points: int = 2) -> DeformableAttention:
    """Over SHAPES, two heads of three channels; offsets and weights depend on the query."""
    torch.manual_seed(0)
    attention = DeformableAttention(6, 2, points, 2, coordinates).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    return attention


def plain(attention: DeformableAttention, shape: tuple, scale: int) -> DeformableAttention:
    """Values and output are left as they are; all weight is on the first point of a scale, which has no offset."""
    with torch.no_grad():
        for linear in (attention.offsets, attention.weights, attention.values, attention.output):
            linear.weight.zero_()
            linear.bias.zero_()
        attention.weights.bias.unflatten(0, attention.samples)[:, scale, 0] = 1000
        for linear in (attention.values, attention.output):
            linear.weight.copy_(torch.eye(6))
    return attention


def inputs(shapes: list[tuple]) -> tuple:
    x = torch.randn(1, sum(map(math.prod, shapes)), 6, dtype=torch.float64)
    return torch.randn_like(x), x, torch.cat([reference_points(shape, x) for shape in shapes]), shapes


def read(volume: torch.Tensor, point: tuple[float, float, float]) -> torch.Tensor:
    """Trilinear interpolation of (E, D, H, W) at indices (d, h, w), voxel by voxel; zeros around the volume."""
    total = torch.zeros(len(volume), dtype=volume.dtype)
    for d in range(volume.shape[1]):
        for h in range(volume.shape[2]):
            for w in range(volume.shape[3]):
                near = [max(0.0, 1 - abs(at - i)) for at, i in zip(point, (d, h, w), strict=True)]
                total += math.prod(near) * volume[:, d, h, w]
    return total


def test_the_published_size():
    """The counts are those of the authors' code (github.com/YtongXie/CoTr, commit 521b4cc), run once on a crop of
    48 x 192 x 192 with 12 classes (11 organs), InstanceNorm and leaky ReLU: `numel` of all parameters, and torch's
    FlopCounterMode (2 x multiply-accumulate, which counts convolutions and matrix products)."""
    with torch.device('meta'):
        model = MODELS.build(dict(type='CoTr', in_channels=1, out_channels=12, crop=(48, 192, 192)))
        crop = torch.zeros(1, 1, 48, 192, 192)

    def count(*parts) -> int:
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    assert count(model) == 41_871_088
    assert (count(model.stem, model.stages), count(model.transformer)) == (20_500_800, 9_316_992)
    shapes = []
    for part in (model.stem, *model.stages, *model.enlarge, *model.refine):
        part.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    with FlopCounterMode(display=False) as flops:
        outputs = model(crop)
    assert flops.get_total_flops() == 1_125_419_581_440
    assert shapes == [(64, 48, 96, 96), (192, 24, 48, 48), (384, 12, 24, 24), (384, 6, 12, 12),
                      *[(384, 12, 24, 24)] * 2, *[(192, 24, 48, 48)] * 2, *[(64, 48, 96, 96)] * 2]
    assert [tuple(logits.shape) for logits in outputs] == [
        (1, 12, 48, 192, 192), (1, 12, 48, 96, 96), (1, 12, 24, 48, 48), (1, 12, 12, 24, 24)]


def test_in_evaluation_the_finest_logits_alone():
    model, crop = CoTr(**MINI).eval(), torch.randn(1, 2, 16, 32, 48)
    assert model(crop).shape == (1, 3, 16, 32, 48)
    assert CoTr(**MINI, deep_supervision=False)(crop).shape == (1, 3, 16, 32, 48)


@pytest.mark.parametrize('supervision', [True, False])
def test_gradients_reach_every_parameter(supervision):
    torch.manual_seed(0)
    model = CoTr(**MINI, deep_supervision=supervision, dropout=0.0)
    with torch.no_grad():
        for layer in model.transformer.layers:  # else queries do not matter yet
            layer.attention.offsets.weight.normal_(std=0.1)
            layer.attention.weights.weight.normal_(std=0.1)
    outputs = model(torch.randn(2, 2, 16, 32, 48))
    sum(logits.square().mean() for logits in (outputs if supervision else [outputs])).backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.abs().sum() > 0]


@pytest.mark.parametrize('config', ['cotr_bcv', 'cotr_matched_bcv', 'cotr_phantom'])
def test_a_recipe_trains_all_scales_and_predicts_whole_volumes(config):
    """At miniature size; the volume is no multiple of the crop."""
    cfg, index = load_model_config(REPO / f'configs/{config}.py', {
        'experiment.crop': (8, 32, 32), 'model.network.coordinates': 'whd', 'model.network.layers': 1,
        **{f'model.network.{name}': MINI[name] for name in ('widths', 'blocks', 'heads')}})
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model, classes = build_model(cfg), len(index['labels'])
    assert [layer.attention.order for layer in model.network.transformer.layers] == [(1, 2, 0)]
    sample = SegDataSample(metainfo=dict(depth=10, ori_shape=(40, 33)))
    sample.gt_sem_seg = PixelData(data=torch.randint(classes, (8, 32, 32)))
    losses = model.train()(torch.randn(1, 8, 32, 32), [sample], mode='loss')
    sum(losses.values()).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in (*model.network.heads, model.network.head))
    with torch.no_grad():
        [found] = model.eval()(torch.randn(1, 10, 40, 33), [sample], mode='predict')
    assert found.pred_sem_seg.data.shape == (10, 40, 33) and found.pred_sem_seg.data.max() < classes


@pytest.mark.parametrize('crop', [(12, 32, 32), (16, 40, 32), (16, 32, 24)])
def test_a_crop_that_the_strides_do_not_divide_is_refused(crop):
    with pytest.raises(UserError, match=r'experiment.crop=.*: CoTr needs multiples of 8 x 16 x 16'):
        CoTr(**MINI | dict(crop=crop))


@pytest.mark.parametrize('wrong', [dict(widths=(6, 12, 20)), dict(heads=5), dict(coordinates='xyz')])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match='must be'):
        CoTr(**MINI | wrong)


def test_bfloat16_follows_float32():
    torch.manual_seed(0)
    model, crop = CoTr(**MINI).eval(), torch.randn(1, 2, 16, 32, 32)
    exact = model(crop)
    with torch.autocast('cpu', torch.bfloat16):
        assert (model(crop) - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize('coordinates', ['dwh', 'whd'])
def test_deformable_attention_is_the_slow_loop(coordinates):
    """Every sample read by itself. The point D, W, H is taken as the axes W, H, D by `dwh`, as what it says by
    `whd`; places are fractions, in which the first voxel's centre is half a voxel from 0."""
    attention, (queries, x, places, shapes) = random_attention(coordinates), inputs(SHAPES)
    values, offsets, weights = (linear(y)[0] for linear, y in (
        (attention.values, x), (attention.offsets, queries), (attention.weights, queries)))
    maps = [part.T.unflatten(1, shape)
            for part, shape in zip(values.split([math.prod(shape) for shape in shapes]), shapes, strict=True)]
    expected = torch.zeros_like(x[0])
    for n in range(len(expected)):
        shares = weights[n].unflatten(0, (2, 4)).softmax(1).unflatten(1, (2, 2))
        for head in range(2):
            for scale, (depth, height, width) in enumerate(shapes):
                for point in range(2):
                    step = offsets[n].unflatten(0, (2, 2, 2, 3))[head, scale, point]
                    d, w, h = ((place + part / side).item() for place, part, side in
                               zip(places[n], step, (depth, width, height), strict=True))
                    d, h, w = (d, h, w) if coordinates == 'whd' else (h, w, d)
                    at = (d * depth - 0.5, h * height - 0.5, w * width - 0.5)
                    own = slice(3 * head, 3 * head + 3)
                    expected[n, own] += shares[head, scale, point] * read(maps[scale][own], at)
    torch.testing.assert_close(attention(queries, x, places, shapes)[0], attention.output(expected))


@pytest.mark.parametrize('scale', [0, 1])
def test_without_offset_a_query_samples_its_own_place(scale):
    attention = plain(random_attention('whd'), SHAPES[scale], scale)
    _, x, places, shapes = inputs(SHAPES)
    own = slice(0, 24) if scale == 0 else slice(24, None)
    torch.testing.assert_close(attention(x, x, places, shapes)[0, own], x[0, own])


def test_the_published_order_samples_another_place():
    """A delta at (d, h, w) = (1, 2, 3): in the authors' order it is seen by the query at (3, 1, 2), whose H, W and
    D are its D, H and W."""
    x = torch.zeros(1, 64, 6, dtype=torch.float64)
    x[0, 16 * 1 + 4 * 2 + 3] = 1
    shapes, places = [(4, 4, 4)], reference_points((4, 4, 4), x)
    for coordinates, seen in (('whd', (1, 2, 3)), ('dwh', (3, 1, 2))):
        attention = DeformableAttention(6, 2, 1, 1, coordinates).double()
        found = plain(attention, shapes[0], 0)(x, x, places, shapes)[0, :, 0].unflatten(0, shapes[0])
        assert [tuple(index.tolist()) for index in (found > 1e-9).nonzero()] == [seen]
        torch.testing.assert_close(found[seen], torch.tensor(1.0, dtype=torch.float64))


def test_offsets_are_voxels_ordered_depth_width_height():
    shape = (3, 4, 5)
    for axis, (d, h, w) in enumerate([(1, 0, 0), (0, 0, 1), (0, 1, 0)]):
        attention = plain(DeformableAttention(6, 2, 1, 1, 'whd').double(), shape, 0)
        with torch.no_grad():
            attention.offsets.bias.unflatten(0, (2, 3))[:, axis] = 1
        x = torch.randn(1, 60, 6, dtype=torch.float64)
        found = attention(x, x, reference_points(shape, x), [shape])[0].unflatten(0, shape)
        torch.testing.assert_close(found[1, 1, 1], x[0].unflatten(0, shape)[1 + d, 1 + h, 1 + w])


def test_attention_starts_as_a_mean_over_steps_in_each_heads_direction():
    attention = DeformableAttention(24, 6, 4, 2, 'dwh')
    query = torch.randn(24)
    assert not attention.weights(query).any()  # all points weigh the same
    offsets = attention.offsets(query).unflatten(0, (6, 2, 4, 3))
    assert offsets[0, 1].tolist() == [[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]
    torch.testing.assert_close(offsets.abs().amax(-1), torch.arange(1, 5.0).expand(6, 2, 4))
    sine, cosine = math.sin(math.pi / 3), math.cos(math.pi / 3)
    torch.testing.assert_close(offsets[1, 0, 0], torch.tensor([cosine, sine * cosine, sine ** 2]) / sine ** 2)


def test_positions_are_told_by_axis():
    """Depth, height, width in turn; three channels share a frequency, even ones are sines and odd ones cosines."""
    found = encode_positions(SHAPES[0], torch.zeros(1, 24)).unflatten(0, SHAPES[0])
    for d, h, w in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        fractions = [(index + 0.5) / side for index, side in zip((d, h, w), SHAPES[0], strict=True)]
        expected = [(math.cos if channel % 2 else math.sin)(2 * math.pi * at / 10000 ** (3 * (channel // 3) / 8))
                    for at in fractions for channel in range(8)]
        torch.testing.assert_close(found[d, h, w], torch.tensor(expected))

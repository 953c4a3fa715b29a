"""What a training step and an evaluation spend their time on: python benchmarks/speed/step.py [--precision bf16]

DINOv2's ViT-S/14 with the light decoder (configs/_base_/vit_small.py) starts from random weights here: what the
weights are makes no difference to time. A step is taken apart at the borders of its parts, and each backward pass
begins with the gradient that the part behind has left.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed import common  # noqa: E402
from benchmarks.speed.loader import write_dataset  # noqa: E402
from mmseg_plugins.acceleration import HALVES, PRECISIONS  # noqa: E402
from mmseg_plugins.building import build_model  # noqa: E402
from mmseg_plugins.commands import REPO  # noqa: E402
from mmseg_plugins.datasets.layouts import describe_folder  # noqa: E402
from mmseg_plugins.datasets.prepare import prepare_dataset  # noqa: E402
from mmseg_plugins.errors import run_main  # noqa: E402
from mmseg_plugins.evaluation import CaseMetric  # noqa: E402
from mmseg_plugins.experiment import load_config, prepare_for_device  # noqa: E402

CONFIG = 'configs/dinov2_centering_chaos.py'
SURFACES = ['hd95', 'nsd']


def step_parts(cfg) -> dict[str, Callable[[], object]]:
    """The parts of a step, to be called in turn."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner

    model, at = build_model(cfg).train(), SimpleNamespace()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=cfg.experiment.seed))

    def leaves(tensors):
        return [tensor.detach().requires_grad_() for tensor in tensors]

    def load():
        at.batch = next(batches)

    def scale():
        at.data = model.data_preprocessor(at.batch, True)

    def encode():
        with wrapper.optim_context(model):
            at.maps = model.backbone(at.data['inputs'])

    def decode():
        at.decoded = leaves(at.maps)
        with wrapper.optim_context(model):
            at.logits = model.decode_head(model.neck(at.decoded))

    def compute_loss():
        at.judged = leaves([at.logits])
        with wrapper.optim_context(model):
            losses = model.decode_head.loss_by_feat(*at.judged, at.data['data_samples'])
        model.parse_losses(losses)[0].backward()

    def decode_back():
        at.logits.backward(at.judged[0].grad)

    def encode_back():
        torch.autograd.backward(at.maps, [leaf.grad for leaf in at.decoded])

    def update():
        wrapper.step()
        wrapper.zero_grad()

    return {'loading the windows': load, 'intensity scaling': scale, 'encoder, forward': encode,
            'pyramid and decoder, forward': decode, 'loss, both ways': compute_loss,
            'pyramid and decoder, backward': decode_back, 'encoder, backward': encode_back,
            'clipping and optimizer': update}


def evaluation_parts(cfg) -> tuple[dict[str, Callable[[], object]], int]:
    """The parts of evaluating a case, to be called in turn, and how many windows it has.

    What is scored is the label moved by a pixel: random weights' predictions would be noise, whose surface is
    everywhere.
    """
    from mmengine.runner import Runner

    model, at = build_model(cfg).eval(), SimpleNamespace()
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=cfg.experiment.seed)

    def load():
        at.batches = list(loader)

    def scale():
        at.data = [model.data_preprocessor(batch, False) for batch in at.batches]

    @torch.no_grad()
    def forward():
        at.logits = [model.inference(data['inputs'], [sample.metainfo for sample in data['data_samples']])
                     for data in at.data]

    @torch.no_grad()
    def to_native():
        at.samples = [model.postprocess_result(logits, data['data_samples'])
                      for logits, data in zip(at.logits, at.data, strict=True)]
        for sample in sum(at.samples, []):
            sample.pred_sem_seg.data = sample.gt_sem_seg.data.roll(1, -1)

    def score(*only: str):
        metric = CaseMetric(only=only)
        metric.dataset_meta = loader.dataset.metainfo
        for batch, samples in zip(at.batches, at.samples, strict=True):
            metric.process(batch, [sample.to_dict() for sample in samples])

    return {'loading the windows': load, 'intensity scaling': scale, 'forward pass': forward,
            'label maps at native resolution': to_native, 'confusion matrices': lambda: score('dsc'),
            'confusion matrices, and HD95 and NSD of the case': lambda: score(*SURFACES)}, len(loader.dataset)


def shares(parts: dict[str, Callable], repeats: int, count: int) -> list[list[str]]:
    """Rows of a table: each part's CPU milliseconds, of `count` together, and its share of all."""
    for work in parts.values():
        work()
    seconds = common.take_turns({name: lambda work=work: common.timed(work) for name, work in parts.items()},
                                repeats).median()
    return [[name, f'{1000 * part / count:.1f}', f'{100 * part / seconds.sum():.1f}']
            for name, part in seconds.items()] + [['all', f'{1000 * seconds.sum() / count:.1f}', '100.0']]


def main() -> int:
    args = common.parse_case_args('Time the parts of a step.', repeats=5, size=256, options={
        '--input': dict(type=int, default=224, help='height and width of the input, in pixels (default: 224)'),
        '--batch': dict(type=int, default=4, help='windows of a step (default: 4)'),
        '--precision': dict(choices=PRECISIONS, default='fp32', help='of training (default: fp32)'),
        '--inference-precision': dict(choices=('fp32', *HALVES), default='fp32',
                                      help='of evaluation (default: fp32)')})
    with tempfile.TemporaryDirectory() as scratch:
        image, label, volume = common.make_case(args, Path(scratch))
        raw = write_dataset(image, label, int(volume.label.max()) + 1, Path(scratch) / 'raw')
        name, info = describe_folder(raw, 'msd')
        prepare_dataset(name, raw, Path(scratch) / 'case', info=info, workers=1)
        values = dict(data_root=str(Path(scratch) / 'case'), source=None, split='all', evaluate='all',
                      img_size=args.input, batch=args.batch, precision=args.precision,
                      inference_precision=args.inference_precision)
        cfg = load_config(REPO / CONFIG, {f'experiment.{key}': value for key, value in values.items()})
        prepare_for_device(cfg, 'none')
        steps = shares(step_parts(cfg), args.repeats, 1)
        parts, windows = evaluation_parts(cfg)
        evaluation = shares(parts, args.repeats, windows)
    depth, _, height, width = volume.image.shape
    text = (f'# Parts of a training step and of an evaluation: {cfg.experiment.slices} slices of {args.input} x '
            f'{args.input} pixels, {args.precision}\n\nA step of {args.batch} windows:\n\n'
            + common.table(['part', 'CPU-ms', '% of the step'], steps)
            + f'\nEvaluating a case of {width} x {height} x {depth} voxels and '
              f'{cfg.model.decode_head.num_classes} labels, {args.inference_precision}:\n\n'
            + common.table(['part', 'CPU-ms per window', '% of the window'], evaluation))
    common.write_page(__file__, args, text, ['torch', 'timm', 'mmsegmentation', 'monai'], untimed='step')
    return 0


if __name__ == '__main__':
    run_main(main)

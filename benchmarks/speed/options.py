"""What mmseg_plugins/acceleration.py gains and costs: python benchmarks/speed/options.py [--repeats N]

Every option trains the same few steps from the same seed on the embedded phantom, once per round: the
miniature as it is, and BEiT-B with the paper's decoder (512 pixels and batches of 8 on a GPU, 224 and 2 on a
CPU). Drop path and dropout are off, so that what differs in the losses is arithmetic.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault('KINETO_LOG_LEVEL', '6')  # torch's profiler says when it starts and stops

import torch  # noqa: E402

from benchmarks.speed.common import CONSOLE, make_parser, parse, table, take_turns, write_page  # noqa: E402
from mmseg_plugins.acceleration import missing_for_compilation  # noqa: E402
from mmseg_plugins.building import build_model  # noqa: E402
from mmseg_plugins.commands import REPO  # noqa: E402
from mmseg_plugins.datasets.phantom import write_phantom  # noqa: E402
from mmseg_plugins.datasets.prepare import prepare_dataset  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.experiment import load_config, prepare_for_device  # noqa: E402

DEFAULT = 'float32 (default)'
OPTIONS = {
    DEFAULT: {}, 'tf32': dict(precision='tf32'), 'bf16': dict(precision='bf16'), 'fp16': dict(precision='fp16'),
    'activation checkpointing': dict(activation_checkpointing=True), 'channels last': dict(channels_last=True),
    'compile': dict(compile=True), 'bf16, channels last': dict(precision='bf16', channels_last=True),
    'bf16, channels last, checkpointing':
        dict(precision='bf16', channels_last=True, activation_checkpointing=True),
    'bf16, channels last, compile': dict(precision='bf16', channels_last=True, compile=True)}
GPU_ONLY = ('tf32', 'fp16')


def missing_for(option: dict) -> str | None:
    """What an option needs and this machine lacks."""
    gpu = torch.cuda.is_available()
    if option.get('precision') in GPU_ONLY and not gpu:
        return 'a GPU'
    return missing_for_compilation(gpu) if option.get('compile') else None


def train(config: str, options: dict, steps: int) -> tuple[list[float], list[float], float]:
    """Train from the config's seed; one step more measures memory.

    Returns:
        Seconds of each step but the first, losses of all, and the bytes that torch allocates at most at a
        time in a step beyond weights and the optimizer's state.
    """
    from mmengine.device import get_device
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner, set_random_seed

    cfg = load_config(REPO / config, options)
    prepare_for_device(cfg, 'none')
    cfg.model.backbone.drop_path_rate = cfg.model.decode_head.dropout_ratio = 0.0
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    set_random_seed(cfg.experiment.seed)
    model = build_model(cfg).to(get_device()).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=cfg.experiment.seed))
    seconds, losses = [], []
    for _ in range(steps):
        batch = next(batches)
        start = clock()
        loss = model.train_step(batch, optimizer)['loss']
        seconds.append(clock() - start)
        losses.append(loss.item())
    batch = next(batches)
    return seconds[1:], losses, measure_peak(lambda: model.train_step(batch, optimizer))


def clock() -> float:
    """Seconds: the GPU's, or CPU time where there is none."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure_peak(step) -> float:
    """Bytes that torch allocates at most at a time while a step runs, beyond what it finds."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    with tempfile.NamedTemporaryFile(suffix='.json') as file:
        profile.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())['traceEvents']
    events = sorted((event for event in events if event['name'] == '[memory]'), key=lambda event: event['ts'])
    return float(np.cumsum([event['args']['Bytes'] for event in events]).max())


def section(name: str, config: str, options: dict, args: argparse.Namespace) -> str:
    """Measure one model with every option; a heading and its table."""
    missing = {label: missing_for(option) for label, option in OPTIONS.items()}
    losses, peak, rows = {}, {}, []

    def time_step(label: str) -> float:
        chosen = {f'experiment.{key}': value for key, value in OPTIONS[label].items()}
        seconds, losses[label], peak[label] = train(config, options | chosen, args.steps)
        gc.collect()
        return float(np.median(seconds))

    CONSOLE.print(name)
    ways = {label: partial(time_step, label) for label in OPTIONS if not missing[label]}
    seconds = take_turns(ways, args.repeats)
    for label in OPTIONS:
        if missing[label]:
            rows.append([label, *[f'needs {missing[label]}'] * 4])
            continue
        ratio = (seconds[label] / seconds[DEFAULT]).median()
        difference = np.abs(np.subtract(losses[label], losses[DEFAULT])).max()
        rows.append([label, f'{seconds[label].median():.3f}', f'{ratio:.2f}', f'{peak[label] / 2 ** 20:.0f}',
                     '0' if difference == 0 else f'{difference:.1e}'])
    cfg = load_config(REPO / config, options)
    size = cfg.experiment.img_size
    return (f'## {name}: {cfg.experiment.slices} slices of {size} x {size} pixels, batches of '
            f'{cfg.experiment.batch}\n\n' + table(
                ['option', 's per step', 'x the default\'s', 'memory of a step, MiB',
                 f'largest difference of {args.steps} losses'], rows)
            + f'\nThe default\'s losses run from {losses[DEFAULT][0]:.3f} to {losses[DEFAULT][-1]:.3f}.\n')


def main() -> int:
    parser = make_parser('Time training steps with each option.', repeats=3)
    parser.add_argument('--models', nargs='+', choices=['mini', 'base'], default=['mini', 'base'])
    parser.add_argument('--size', type=int, help='height and width of the input, in pixels')
    parser.add_argument('--batch', type=int, help='windows per step')
    parser.add_argument('--steps', type=int, default=4, help='per round; all but the first are timed (default: 4)')
    args, gpu = parse(parser), torch.cuda.is_available()
    if args.steps < 2:
        parser.error('--steps must be at least 2')
    if args.batch == 1:
        raise UserError('--batch 1: the decoder\'s norm over a pooled map needs two windows')
    chosen = {'experiment.img_size': args.size, 'experiment.batch': args.batch}
    given = {key: value for key, value in chosen.items() if value}
    base = {'experiment.img_size': 512 if gpu else 224, 'experiment.batch': 8 if gpu else 2} | given
    with tempfile.TemporaryDirectory() as scratch:
        raw, prepared = Path(scratch) / 'raw', Path(scratch) / 'phantom'
        CONSOLE.print('preparing the phantom')
        write_phantom(raw)
        prepare_dataset('phantom', raw, prepared, workers=1)
        data = {'experiment.data_root': str(prepared), 'experiment.source': None}
        sections = {'mini': ('Mini BEiT', 'configs/beit_centering_phantom.py', data | given),
                    'base': ('BEiT-B, UPerNet', 'configs/beit_centering_bcv.py', data | base)}
        text = '# Options of training: time, memory, arithmetic\n\n' + '\n'.join(
            section(*sections[name], args) for name in args.models)
    text += ('\nMemory is what torch allocates at most at a time within a step: gradients and activations, but '
             'not weights and the optimizer\'s state' + ('' if gpu else ' (in main memory, by torch\'s profiler)')
             + '. Ratios are medians of the rounds\' own.\n')
    if not gpu:
        text += ('What these options are for is GPUs, of which this machine has none. '
                 '`python benchmarks/speed/options.py --out benchmarks/speed/options_gpu.md` on one fills a page '
                 'of the same tables, tf32 and fp16 included.\n')
    write_page(__file__, args, text, ['torch', 'torchvision', 'timm'], gpu, 'step')
    return 0


if __name__ == '__main__':
    run_main(main)

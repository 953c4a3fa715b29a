"""The settings of a run as the paper's Table 6 has them, read from the config that it ran with."""

from mmengine.config import Config

from mmseg_plugins.experiment import describe_crops


def describe_settings(cfg: Config) -> dict[str, str]:
    """Settings by the names of benchmarks/paper/table6_settings.csv, as text.

    Args:
        cfg: carried through by `load_config`.
    """
    experiment, optimizer, model = cfg.experiment, cfg.optim_wrapper.optimizer, cfg.model
    crops = describe_crops(experiment)
    if not crops:
        size = experiment.img_size if isinstance(experiment.img_size, int) else tuple(experiment.img_size)
    losses = (model if 'network' in model else model.decode_head).loss_decode
    losses = losses if isinstance(losses, list | tuple) else [losses]
    power = cfg.param_scheduler.power
    decay = ('linear decay to zero' if power == 1 else 'cosine decay to zero' if power == 'cosine' else
             f'polynomial decay to zero (power {power:g})')
    own = {key: model.data_preprocessor[key] for key in ('clip', 'scaled') if key in model.data_preprocessor}
    return dict(
        batch_size=str(experiment.batch), loss=' + '.join(map(_describe, losses)),
        learning_rate=f'{experiment.lr:g}',
        scheduler=f'slanted triangular (linear warm-up then {decay})' if cfg.param_scheduler.warmup else decay,
        steps=str(experiment.steps), input=crops or f'{size} pixels, {experiment.slices} slices',
        optimizer=optimizer.type, weight_decay=str(optimizer.get('weight_decay', 'the optimizer\'s own')),
        warmup_steps=str(experiment.warmup),
        train_augmentation='; '.join(map(_describe, cfg.train_dataloader.dataset.pipeline[1:-1])),
        intensity=_describe(own | dict(type=f'protocol {experiment.protocol}')),
        inference=f'overlap {model.get("overlap", 0.5)}' if crops else
        '; '.join(map(_describe, cfg.val_dataloader.dataset.pipeline[1:-1])) or 'none')


def _describe(part: dict) -> str:
    """A loss or a transform and, in brackets, its options; `size` is the input's."""
    options = []
    for key, value in part.items():
        if key not in ('type', 'size'):
            pair = isinstance(value, list | tuple) and len(value) == 2
            options.append(f'{key} {"..".join(map(str, value)) if pair else value}')
    return part['type'].removesuffix('Loss') + (f' ({", ".join(options)})' if options else '')

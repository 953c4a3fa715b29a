"""What a run is, read from the config that it ran with: its settings as the paper's Table 6 has them, its kind."""

from mmengine.config import Config


def describe_settings(cfg: Config) -> dict[str, str]:
    """Settings by the names of benchmarks/paper/table6_settings.csv, as text.

    Args:
        cfg: carried through by `load_config`.
    """
    experiment, optimizer, model = cfg.experiment, cfg.optim_wrapper.optimizer, cfg.model
    size = experiment.img_size if isinstance(experiment.img_size, int) else tuple(experiment.img_size)
    scheduler = ('slanted triangular (linear warm-up then linear decay to zero)' if cfg.param_scheduler.warmup else
                 'linear decay to zero')
    return dict(
        batch_size=str(experiment.batch), loss=_loss(model.decode_head.loss_decode),
        learning_rate=f'{experiment.lr:g}', scheduler=scheduler,
        steps=str(experiment.steps), input=f'{size} pixels, {experiment.slices} slices',
        optimizer=optimizer.type, weight_decay=str(optimizer.get('weight_decay', 'the optimizer\'s own')),
        warmup_steps=str(experiment.warmup),
        train_augmentation='; '.join(_transform(step) for step in cfg.train_dataloader.dataset.pipeline[1:-1]),
        intensity=f'protocol {experiment.protocol}',
        inference='; '.join(_transform(step) for step in cfg.val_dataloader.dataset.pipeline[1:-1]) or 'none')


def describe_kind(title: str, experiment, labels: int) -> str:
    """The kind of a run in words: steps of one kind and of as many FLOPs cost the same.

    Args:
        title: what is trained, and on what.
        experiment: of its config.
        labels: K with background.
    """
    size, passes = experiment.img_size, experiment.accumulate
    size = (size, size) if isinstance(size, int) else size
    target = ' to all' if experiment.target == 'all' else ''
    words = [title, f'{"x".join(map(str, (experiment.slices, *size)))}{target}',
             f'{labels} labels', f'batch {experiment.batch}' + (f' in {passes} passes' if passes > 1 else '')]
    words += [experiment.precision] if experiment.get('precision') not in (None, 'fp32') else []
    words += [key.replace('_', ' ') for key in ('activation_checkpointing', 'compile', 'channels_last')
              if experiment.get(key)]
    return ', '.join(words)


def _loss(loss) -> str:
    if isinstance(loss, list | tuple):
        return ' + '.join(map(_loss, loss))
    options = [f'{key} {value}' for key, value in loss.items() if key != 'type']
    return loss['type'].removesuffix('Loss') + (f' ({", ".join(options)})' if options else '')


def _transform(step) -> str:
    options = [f'{key} {".." .join(map(str, value)) if isinstance(value, list | tuple) else value}'
               for key, value in step.items() if key not in ('type', 'size')]
    return step['type'] + (f' ({", ".join(options)})' if options else '')

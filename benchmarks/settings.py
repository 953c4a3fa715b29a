"""The paper's Table 6 of a run: its settings, read from the config that it ran with."""

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


def _loss(loss) -> str:
    if isinstance(loss, list | tuple):
        return ' + '.join(map(_loss, loss))
    options = [f'{key} {value}' for key, value in loss.items() if key != 'type']
    return loss['type'].removesuffix('Loss') + (f' ({", ".join(options)})' if options else '')


def _transform(step) -> str:
    options = [f'{key} {".." .join(map(str, value)) if isinstance(value, list | tuple) else value}'
               for key, value in step.items() if key not in ('type', 'size')]
    return step['type'] + (f' ({", ".join(options)})' if options else '')

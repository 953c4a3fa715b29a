"""The learning rate by step: linear warm-up, then polynomial or cosine decay to zero (Zhang et al. 2022, Table 6:
linear).

And which parameters have a rate or a weight decay of their own, and how fast a kernel's neighbour slices move.
"""

import math

import torch
from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, _ParamScheduler
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS
from torch import nn

from .collective import unwrapped


def rate_factor(step: int, steps: int, warmup: int, power: float | str = 1) -> float:
    """What the asked rate is multiplied by in a step, as MMSegmentation's LinearLR and PolyLR in turn have it.

    Args:
        step: from 0.
        steps: of the training; the last has rate 0.
        warmup: steps that lead up to the asked rate, which the last of them has; a single one has half of it.
        power: of the decay; 1 is linear. `cosine`: it follows half a cosine.
    """
    if step < warmup:
        least = 1 / (warmup + 1)
        return least + (1 - least) * step / max(warmup - 1, 1)
    left = max(1 - (step - warmup) / max(steps - warmup - 1, 1), 0.0)
    return (1 - math.cos(math.pi * left)) / 2 if power == 'cosine' else left ** power


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(_ParamScheduler):
    """`rate_factor` as a scheduler of mmengine: a function of the step alone, which any step can be gone on from.

    Args:
        optimizer: whose groups' `lr` it sets, each a multiple of its own first one.
        end: steps of the training, by mmengine's name.
        warmup: of these, steps of warm-up.
        power: of the decay, or `cosine`.
    """

    def __init__(self, optimizer, end: int, warmup: int, power: float | str = 1):
        self.steps, self.warmup, self.power = end, warmup, power
        super().__init__(optimizer, 'lr', by_epoch=False)

    def _get_value(self) -> list[float]:
        factor = rate_factor(self.last_step, self.steps, self.warmup, self.power)
        return [base * factor for base in self.base_values]

    def move_to(self, step: int) -> None:
        """Set the rates that come after so many steps."""
        self.last_step = self._global_step = step - 1
        self.step()


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RatesBesideDecay(DefaultOptimWrapperConstructor):
    """mmengine's constructor, in which a part's own rate leaves the rules of weight decay as they are.

    There a custom key decides both, so that `decode_head=dict(lr_mult=10)` would decay all of the decoder. An
    encoder's `rate_factors`, by names of its parameters, multiply what the custom keys say; those above 1 leave
    what AdamW's decay takes off in a step as it is, which is in proportion to the rate.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        # with none, mmengine would not call add_params, and the encoder's rates would be lost
        super().__init__(optim_wrapper_cfg, {'custom_keys': {}, **(paramwise_cfg or {})})

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        keys = self.paramwise_cfg.get('custom_keys', {})
        rates = {key: settings['lr_mult'] for key, settings in keys.items() if 'lr_mult' in settings}
        factors = {f'backbone.{name}': factor
                   for name, factor in getattr(getattr(module, 'backbone', None), 'rate_factors', {}).items()}
        if prefix or not (rates or factors):
            super().add_params(params, module, prefix, **kwargs)
            return
        self.paramwise_cfg['custom_keys'] = {
            key: settings for key, settings in keys.items() if 'decay_mult' in settings}
        super().add_params(params, module, **kwargs)
        self.paramwise_cfg['custom_keys'] = keys
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            [parameter] = group['params']
            name = names[id(parameter)]
            own = max((key for key in rates if key in name), key=len, default=None)
            if own or name in factors:
                before = self.base_lr * rates[own] if own else group.get('lr', self.base_lr)
                group['lr'] = before * factors.get(name, 1)
            if factors.get(name, 1) > 1 and self.base_wd:
                group['weight_decay'] = group.get('weight_decay', self.base_wd) / factors[name]


@HOOKS.register_module()
class NeighbourRate(Hook):
    """The patch embedding's kernel moves at a rate of its own in all slices but the centre one.

    Of every optimizer step's change of these slices a share is kept, weight decay's with the gradient's, as an
    `lr_mult` does it for whole parameters. (Adam divides a gradient by its own size: a factor on that would change
    nothing, and a kernel of zeros moves by the full rate in each step, however small its gradient.)

    Args:
        factor: of the rate; 0 holds the slices where inflation put them.
    """
    priority = 'VERY_HIGH'  # before anything that reads the step's weights: a moving average, a checkpoint

    def __init__(self, factor: float):
        self.factor = factor

    def before_train(self, runner) -> None:
        encoder = unwrapped(runner.model).backbone
        self.kernel = encoder.model.patch_embed.proj.weight.detach()  # (E, C * S, P, P), the parameter's memory
        self.neighbours = [channel for channel in range(self.kernel.shape[1])
                           if channel % encoder.slices != encoder.slices // 2]

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self.before = self.kernel[:, self.neighbours]

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        after = self.kernel[:, self.neighbours]
        self.kernel[:, self.neighbours] = torch.lerp(self.before, after, self.factor)

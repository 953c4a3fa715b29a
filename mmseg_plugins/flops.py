"""What a model costs, by part, as the paper counts it (Zhang et al. 2022, table 2 and section 4.4).

FLOPs are 2 x multiply-accumulates of convolutions, matrix products (linear layers and both attention
products), and in the encoder one multiply-accumulate per element of every norm and of every scaling: of
the queries, and of both branches where a model has layer scale. For BEiT-B/16 with T patches, N = T + 1
tokens and width d that is `2 [256 T d S + 12 (12 N d^2 + 2 N^2 d + 5 N d)]`, and the paper's decoder is
neck and head together; nothing here uses the formula, the model's own operations are counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .building import build_model

PARTS = {'backbone.model.patch_embed': 'patch embedding', 'backbone': 'blocks', 'neck': 'neck',
         'decode_head': 'decoder', 'auxiliary_head': 'auxiliary decoder'}


@dataclass(frozen=True)
class Cost:
    """Of one part for one window: parameters, FLOPs, and activations (elements that counted layers put out)."""
    parameters: int
    flops: int
    activations: int

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(self.parameters + other.parameters, self.flops + other.flops,
                    self.activations + other.activations)


def count_cost(model: nn.Module, size: Sequence[int]) -> dict[str, Cost]:
    """Cost by part of one forward pass over a single window; allocates nothing on the meta device.

    Args:
        model: a segmentor whose `backbone` has `channels`, `slices` and an inner `model`.
        size: (height, width) of the input in pixels.

    Returns:
        PARTS that the model has, in that order.
    """
    backbone, counter, hooks = model.backbone, _Counter(), []
    for name, module in model.named_modules():
        if name in PARTS:
            hooks += [module.register_forward_pre_hook(lambda *_, part=PARTS[name]: counter.stack.append(part)),
                      module.register_forward_hook(lambda *_: counter.stack.pop() and None)]
    for module in backbone.modules():
        hooks.append(module.register_forward_hook(counter.count_elementwise))
        if hasattr(module, 'qkv') or hasattr(module, 'q_proj'):
            hooks.append(module.register_forward_pre_hook(counter.expect_queries))
    device = next(model.parameters()).device
    window = torch.zeros(1, backbone.channels * backbone.slices, *size, device=device)
    fused = [module for module in model.modules() if getattr(module, 'fused_attn', False)]
    training = model.training
    try:
        for module in fused:  # its products are then operations of their own
            module.fused_attn = False
        with torch.no_grad(), counter:
            model.eval()(window, mode='tensor')
    finally:
        model.train(training)
        for module in fused:
            module.fused_attn = True
        for hook in hooks:
            hook.remove()
    parameters = Counter()
    for name, parameter in model.named_parameters():
        part = next(part for prefix, part in PARTS.items() if name.startswith(f'{prefix}.'))
        parameters[part] += parameter.numel()
    if parameters['blocks']:  # a backbone without an inner patch embedding has one of no cost
        parameters['patch embedding'] += 0
    return {part: Cost(parameters[part], counter.flops[part], counter.activations[part])
            for part in PARTS.values() if part in parameters}


def count_config(cfg: Config) -> dict[str, Cost]:
    """Cost by part of the model of a config of `load_model_config`, at its input size."""
    size = cfg.experiment.img_size
    with torch.device('meta'):
        model = build_model(cfg)
    return count_cost(model, (size, size) if isinstance(size, int) else size)


class _Counter(TorchDispatchMode):
    """Adds up operations under the part that is running."""

    def __init__(self):
        super().__init__()
        self.stack = ['decoder']  # mmseg calls its head's forward past any hook
        self.scaled_queries = False
        self.flops: Counter[str] = Counter()
        self.activations: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count:
            self.flops[self.stack[-1]] += count(*args, **(kwargs or {}), out_val=out)
            self.activations[self.stack[-1]] += out.numel()
        if self.scaled_queries and func._overloadpacket is torch.ops.aten.bmm:  # queries x keys
            self.flops[self.stack[-1]] += 2 * args[0].numel()
            self.scaled_queries = False
        return out

    def expect_queries(self, module: nn.Module, inputs) -> None:
        """An attention always scales its queries, those of padding too: Video Swin pads inside of it."""
        self.scaled_queries = True

    def count_elementwise(self, module: nn.Module, inputs, output) -> None:
        """Norms and layer scales."""
        times = 0
        if isinstance(module, nn.LayerNorm) or type(module).__name__ == 'LayerScale':
            times = 1
        elif getattr(module, 'gamma_1', None) is not None:
            times = 2
        if times:
            self.flops[self.stack[-1]] += 2 * times * output.numel()

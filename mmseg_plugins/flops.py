"""What a model costs, by part, as the paper counts it (Zhang et al. 2022, table 2 and section 4.4).

FLOPs are 2 x multiply-accumulates of convolutions, matrix products (linear layers and both attention
products), and in the encoder one multiply-accumulate per element of every norm and of every scaling: of
the queries, and of both branches where a model has layer scale. For BEiT-B/16 with T patches, N = T + 1
tokens and width d that is `2 [256 T d S + 12 (12 N d^2 + 2 N^2 d + 5 N d)]`, and the paper's decoder is
neck and head together; nothing here uses the formula, the model's own operations are counted. Of a network that
takes volumes the convolutions and matrix products count. Weights that are computed from others count as merged. Of
attention over depth that a lifting adds, the scaling of the queries is left out, and so is the layer scale of
BEiT's and EVA's blocks with `adapter_conv_pair`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .building import build_model
from .computed import Computed
from .keys import sides

PARTS = {'backbone.model.patch_embed': 'patch embedding', 'backbone': 'blocks', 'neck': 'neck',
         'decode_head': 'decoder', 'auxiliary_head': 'auxiliary decoder', 'network': 'network'}


@dataclass(frozen=True)
class Cost:
    """Of one part for one window or crop: parameters, FLOPs, activations (elements that counted layers give)."""
    parameters: int = 0
    flops: int = 0
    activations: int = 0

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(self.parameters + other.parameters, self.flops + other.flops,
                    self.activations + other.activations)


def count_cost(model: nn.Module, size: Sequence[int]) -> dict[str, Cost]:
    """Cost by part of one forward pass over a single window or crop; allocates nothing on the meta device.

    Args:
        model: a segmentor whose `backbone` has `channels`, `slices` and an inner `model`; or a VolumeSegmentor.
        size: (height, width) of the input in pixels; of a crop (slices, height, width).

    Returns:
        PARTS that the model has, in that order.
    """
    counter, hooks = _Counter(), []
    merged = {id(layer.part) for layer in model.modules() if isinstance(layer, Computed)}
    for name, module in model.named_modules():
        if part := 'weights' if id(module) in merged else PARTS.get(name):
            hooks += [module.register_forward_pre_hook(lambda *_, part=part: counter.stack.append(part)),
                      module.register_forward_hook(lambda *_: counter.stack.pop() and None)]
    backbone = getattr(model, 'backbone', None)
    for module in backbone.modules() if backbone else ():
        hooks.append(module.register_forward_hook(counter.count_elementwise))
        if hasattr(module, 'qkv') or hasattr(module, 'q_proj'):
            hooks.append(module.register_forward_pre_hook(counter.expect_queries))
    device = next(model.parameters()).device
    *slices, height, width = size
    channels = backbone.channels * backbone.slices if backbone else model.channels * slices[0]
    window = torch.zeros(1, channels, height, width, device=device)
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


def input_size(experiment: Mapping) -> list[int]:
    """(height, width) of a config's windows, or (slices, height, width) of its crops."""
    if crop := experiment.get('crop'):
        return list(crop)
    return list(sides(experiment['img_size']))


def count_config(cfg: Config) -> dict[str, Cost]:
    """Cost by part of the model of a config of `load_model_config`, at its input size."""
    with torch.device('meta'):
        model = build_model(cfg)
    return count_cost(model, input_size(cfg.experiment))


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

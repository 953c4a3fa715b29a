"""Weights of other formats -> tensors by their authors' names, and these as a file, whose bytes they decide."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .checkpoints import State, read_checkpoint
from .errors import UserError

SEED = 1234  # of permutations


def read_plain(path: Path) -> State:
    """A checkpoint's tensors, without the token of masked images, which timm's copy of DINOv2 lacks."""
    return {key: value for key, value in read_checkpoint(path).items() if key != 'mask_token'}


def read_onnx(path: Path) -> State:
    """A DINOv2 that was exported from Hugging Face's transformers as `backbone`, in its authors' names.

    The export turned the weights of linear layers over and left them without names: they are known by the node
    that multiplies by them, and the positions, which it divided, by the nodes that put them together.

    Raises:
        UserError: no `onnx`, or not such a file.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UserError(f'{path}: reading it needs onnx: pip install onnx') from None
    try:
        graph = onnx.load(str(path)).graph
        stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
                  for tensor in graph.initializer}
        inputs = {node.name: [stored[name] for name in node.input if name in stored and stored[name].ndim > 1]
                  for node in graph.node}

        def of_node(name: str) -> Tensor:
            [tensor] = inputs[f'/backbone/{name}']
            return tensor

        def part(name: str) -> dict[str, Tensor]:
            return {kind: stored[f'backbone.{name}.{kind}'] for kind in ('weight', 'bias')}

        def linear(name: str) -> dict[str, Tensor]:
            return dict(weight=of_node(f'{name}/MatMul').T,
                        bias=stored[f'backbone.{name}.bias'.replace('/', '.')])

        positions = [of_node(f'embeddings/{node}') for node in ('Concat_6', 'Reshape_1')]  # class token, patches
        state = {'cls_token': stored['backbone.embeddings.cls_token'], 'pos_embed': torch.cat(positions, 1)}
        parts = {'patch_embed.proj': part('embeddings.patch_embeddings.projection'), 'norm': part('layernorm')}
        for block in range(sum(name.endswith('.layer_scale1.lambda1') for name in stored)):
            layer = f'encoder.layer.{block}'
            node, name = f'encoder/layer.{block}', f'blocks.{block}'
            three = [linear(f'{node}/attention/attention/{what}') for what in ('query', 'key', 'value')]
            parts |= {f'{name}.attn.qkv': {kind: torch.cat([each[kind] for each in three])
                                           for kind in ('weight', 'bias')},
                      f'{name}.attn.proj': linear(f'{node}/attention/output/dense')}
            for number in (1, 2):
                parts |= {f'{name}.norm{number}': part(f'{layer}.norm{number}'),
                          f'{name}.mlp.fc{number}': linear(f'{node}/mlp/fc{number}')}
                state[f'{name}.ls{number}.gamma'] = stored[f'backbone.{layer}.layer_scale{number}.lambda1']
    except Exception as error:  # whatever a damaged or another file makes of these look-ups
        raise UserError(f'{path}: not the export that was expected ({type(error).__name__}: {str(error)[:200]}); '
                        'nothing was converted') from error
    return state | {f'{name}.{kind}': tensor for name, both in parts.items() for kind, tensor in both.items()}


def permute(state: State) -> State:
    """Every floating-point tensor with its entries in another order: a network's scale without its features."""
    generator = torch.Generator().manual_seed(SEED)
    return {key: value.flatten()[torch.randperm(value.numel(), generator=generator)].reshape(value.shape)
            if value.is_floating_point() else value for key, value in sorted(state.items())}


def to_bytes(state: State) -> bytes:
    """As safetensors."""
    return save({key: value.contiguous().clone() for key, value in state.items()})

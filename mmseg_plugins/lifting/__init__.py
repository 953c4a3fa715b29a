"""Lifting: how depth enters a 2D Transformer beyond its patch kernel. One way, one file.

With `kernel`, the default, the patch kernel spans the window and all behind it sees one plane of tokens
(inflation.py). A lifting gives each slice a plane of its own and lets planes meet in the blocks, or behind them:

    divided              attention over depth before every pre-trained block (TimeSformer)
    adapter_conv         a bottleneck with a convolution over depth before every block (ST-Adapter)
    adapter_conv_pair    two of them around a block's attention, which do not start at zero (MA-SAM)
    adapter_attention    the block's own attention over depth, behind it a bottleneck (AIM's temporal adaptation)
    plane_cycle          the pre-trained blocks on planes HW, DW, DH, HW in turn (PlaneCycle)
    joint(t)             tubelets of t slices, of which all tokens attend to all (ViViT)
    joint_rotary(t)      the same, a third of the rotary positions' channels turned by depth
    late                 slice by slice; the decoder gets a learned mean of the slices
    late_attention       slice by slice; the decoder gets the centre slice and what it finds in the others

Add one with a class; a keyword argument with a whole number is its number, as in `joint(2)`:

    @register_lifting('shifted')
    class Shifted(Lifting):                          # a quarter of the channels from the slice before
        def run(self, number, block, x, **context):  # x: (B, D, ..., C)
            x = torch.cat([x.roll(1, dims=1)[..., :x.shape[-1] // 4], x[..., x.shape[-1] // 4:]], -1)
            return run_block(block, x, **context)
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pkgutil import iter_modules

import torch
from timm.models.convit import ConVit
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..registering import parse_entry, register_once

Block = Callable[..., Tensor]
LIFTINGS: dict[str, type['Lifting'] | None] = {'kernel': None}


def register_lifting(name: str) -> Callable[[type['Lifting']], type['Lifting']]:
    """Register a class of liftings."""
    return register_once(LIFTINGS, name, 'lifting')


def parse_lifting(text: str) -> tuple[type['Lifting'] | None, dict[str, int]]:
    """`joint(2)` -> (Joint, {'tubelet': 2}); `kernel` -> (None, {}).

    Raises:
        UserError: no such lifting, or a number that it does not take.
    """
    name, options = parse_entry(text, LIFTINGS, 'lifting', {'joint': 1, 'joint_rotary': 1})
    return LIFTINGS[name], options


def token_slices(lifting: str, slices: int) -> int:
    """How many slices a token of a window spans, and with it the patch kernel: all with `kernel`."""
    kind, options = parse_lifting(lifting)
    return options.get('tubelet', kind.tubelet) if kind else slices


class Lifting(nn.Module):
    """How the planes of a window meet. This one: not at all, and the decoder gets the centre plane.

    Its parameters are what the source has no weights for; those of the 2D model stay where they are. A part with
    an attribute `lr_mult` learns at so many times the rate.

    Args:
        model: timm's 2D model, built, without its final norm and head.
        planes: D, of a window.
        centre: the plane that holds the window's centre slice.
        widths: channels of each of the encoder's output maps.

    Raises:
        UserError: it means nothing for this model.
    """
    tubelet = 1  # slices that a token spans
    of_blocks = True  # it works in the blocks, and needs a model that has such: a ViT or a Swin

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__()
        self.planes, self.centre = planes, centre
        if self.of_blocks:
            self.prefix, self.grid = getattr(model, 'num_prefix_tokens', 0), tuple(model.patch_embed.grid_size)

    def start(self, model: nn.Module) -> None:
        """Take over initial weights from the 2D model, which has those of the source by now."""

    def run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        """A block, by its number, on the tokens of all planes.

        Args:
            x: (B, D, T, C), of a plane's T tokens the first `prefix` are no patches; a Swin's (B, D, H, W, C).
            context: what timm gives its blocks beside the tokens (rotary positions, ...).
        """
        return run_block(block, x, **context)

    def fuse(self, number: int, maps: Tensor) -> Tensor:
        """An output map of the window, by its number: (B, D, C, h, w) -> (B, C, h, w)."""
        return maps[:, self.centre]


class PlacedLifting(Lifting):
    """A lifting in which a plane's tokens know which plane it is, by an embedding that starts at zero."""

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        self.pos_embed = nn.Parameter(torch.zeros(planes, blocks_of(model)[0][1]))  # its name: no weight decay

    def place(self, number: int, x: Tensor) -> Tensor:
        """The tokens, to which the embedding is added before the first block."""
        return x if number else (x.movedim(1, -2) + self.pos_embed).movedim(-2, 1)


class LiftedBlocks(nn.Sequential):
    """Blocks under their own names, which run as a lifting says when they are gone through in turn.

    Args:
        blocks: of a ViT, or of one stage of a Swin.
        lifting: of the encoder.
        first: the first one's number.
    """

    def __init__(self, blocks: nn.Module, lifting: Lifting, first: int):
        super().__init__(*blocks.children())
        self.__dict__['lifting'] = lifting  # the encoder's part, not this one's
        self.first = first

    def __iter__(self) -> Iterator[Block]:
        return (partial(self._run, number, block) for number, block in enumerate(self.children(), self.first))

    def _run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        planes = x.unflatten(0, (-1, self.lifting.planes))
        return self.lifting.run(number, block, planes, **context).flatten(0, 1)


def find_holders(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that have `blocks`: a ViT itself, a Swin's stages; none of a model of another kind.

    ConViT is of another kind: its class token is not there in its first blocks.
    """
    if hasattr(model, 'num_prefix_tokens') and hasattr(model, 'blocks') and not isinstance(model, ConVit):
        return [model]
    return list(model.layers) if isinstance(model, SwinTransformer | SwinTransformerV2) else []


def blocks_of(model: nn.Module) -> list[tuple[nn.Module, int]]:
    """A model's blocks in turn, each with the channels of its tokens."""
    holders = find_holders(model)
    widths = [model.embed_dim] if model in holders else [  # of the stages that are left
        stage['num_chs'] for stage in model.feature_info[:len(holders)]]
    return [(block, width) for holder, width in zip(holders, widths, strict=True)
            for block in holder.blocks.children()]


def lift_blocks(model: nn.Module, lifting: Lifting) -> None:
    """Let a model's blocks run as a lifting says."""
    first = 0
    for holder in find_holders(model):
        holder.blocks = LiftedBlocks(holder.blocks, lifting, first)
        first += len(holder.blocks)


def run_block(block: Block, x: Tensor, **context) -> Tensor:
    """A pre-trained block on each plane: (B, D, ..., C) -> the same."""
    return block(x.flatten(0, 1), **context).unflatten(0, x.shape[:2])


def attend(attention: nn.Module, x: Tensor) -> Tensor:
    """Self-attention by weights of timm's ViT, BEiT, EVA or Swin, without positions: (..., N, C) -> the same."""
    batch, width = x.shape[:-1], x.shape[-1]
    x = x.reshape(-1, *x.shape[-2:])
    if attention.qkv is None:
        queries, keys, values = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    else:
        queries, keys, values = attention.qkv(x).chunk(3, -1)
        if getattr(attention, 'q_bias', None) is not None:
            queries, values = queries + attention.q_bias, values + attention.v_bias
    queries, keys, values = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
                             for part in (queries, keys, values))
    if hasattr(attention, 'q_norm'):
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if attention.fused_attn:
        dropped = attention.attn_drop.p if attention.training else 0.0
        x = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropped)
    else:
        x = attention.attn_drop((queries * attention.scale @ keys.transpose(-2, -1)).softmax(-1)) @ values
    x = x.transpose(1, 2).flatten(-2)
    if hasattr(attention, 'norm'):
        x = attention.norm(x)
    return attention.proj_drop(attention.proj(x)).reshape(*batch, width)


def attention_of(block: nn.Module) -> nn.Module:
    """A block's attention, if `attend` can do what it does.

    Raises:
        UserError: it is of another kind, or the block's norm is behind it.
    """
    attention, order = getattr(block, 'attn', None), [name for name, _ in block.named_children()]
    parts = {name for name, _ in attention.named_children()} if attention is not None else set()
    if (not {'proj'} < parts or parts - {'qkv', 'q_proj', 'k_proj', 'v_proj', 'q_norm', 'k_norm', 'norm', 'proj',
                                         'attn_drop', 'proj_drop', 'softmax'}
            or getattr(attention, 'num_kv_heads', attention.num_heads) != attention.num_heads
            or 'norm1' not in order or order.index('norm1') > order.index('attn')):
        raise UserError(f'{type(block).__name__} has no attention that can be used over depth; choose another '
                        'lifting, or another encoder')
    return attention


for _module in iter_modules(__path__):  # each file enters its own
    import_module(f'.{_module.name}', __name__)

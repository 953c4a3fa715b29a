"""Google's vision Transformers as they publish them, in Flax's names and layouts -> timm's.

Dosovitskiy et al., ICLR 2021, plain and behind a ResNet (Kolesnikov et al., ECCV 2020). Flax keeps a convolution
as (height, width, in, out), a linear layer as (in, out), and query, key and value as one kernel each, of shape
(width, heads, width of a head).
"""

import re

import torch
from torch import Tensor

# In turn; what none of them knows keeps its name.
RENAMED = {
    r'^Transformer/encoderblock_(\d+)/': r'blocks.\1.', r'\.LayerNorm_0/': '.norm1/', r'\.LayerNorm_2/': '.norm2/',
    r'\.MlpBlock_3/Dense_0/': '.mlp.fc1/', r'\.MlpBlock_3/Dense_1/': '.mlp.fc2/',
    r'\.MultiHeadDotProductAttention_1/out/': '.attn.proj/',
    r'\.MultiHeadDotProductAttention_1/(query|key|value)/': r'.attn.\1/',
    r'^Transformer/encoder_norm/': 'norm/', r'^Transformer/posembed_input/pos_embedding$': 'pos_embed',
    r'^cls$': 'cls_token', r'^embedding/': 'patch_embed.proj/', r'^pre_logits/': 'pre_logits.fc/',
    r'^conv_root/': 'patch_embed.backbone.stem.conv/', r'^gn_root/': 'patch_embed.backbone.stem.norm/',
    r'^block(\d+)/unit(\d+)/': lambda m: f'patch_embed.backbone.stages.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}.',
    r'\.conv_proj/': '.downsample.conv/', r'\.gn_proj/': '.downsample.norm/', r'\.gn(\d)/': r'.norm\1/',
    r'/(kernel|scale)$': '.weight', '/': '.'}


def is_googles(state: dict[str, Tensor]) -> bool:
    return 'Transformer/encoder_norm/scale' in state


def name_as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by timm's names, in torch's layouts; query, key and value are one."""
    named = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in RENAMED.items():
            name = re.sub(pattern, replacement, name)
        named[name] = _lay_out(name, value) if key.endswith(('/kernel', '/scale', '/bias')) else value
    for name in [name for name in named if '.attn.query.' in name]:
        three = [name.replace('.query.', f'.{part}.') for part in ('query', 'key', 'value')]
        named[name.replace('.query.', '.qkv.')] = torch.cat([named.pop(part) for part in three])
    return named


def _lay_out(name: str, value: Tensor) -> Tensor:
    if not name.endswith('.weight') or value.squeeze().ndim < 2:  # a norm's (1, 1, 1, C), a query's (heads, width)
        return value.flatten()
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1).contiguous()
    return (value.flatten(0, 1) if '.attn.proj.' in name else value.flatten(1)).T.contiguous()

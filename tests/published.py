"""Checkpoints as their authors publish them, made from a timm model's weights: the inverse of timm's filters."""

import re
import zlib

import numpy as np
import torch

NARROW = dict(embed_dim=96, depth=3, num_heads=3)


def rename(state, *pairs):
    """Keys with one regular expression after the other replaced."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def dinov2_with_registers(state):
    position = torch.randn(1, 1, 96) * 0.02  # the class token's, which timm adds to the token
    return {'mask_token': torch.zeros(1, 96)} | rename(state, ('reg_token', 'register_tokens')) | dict(
        pos_embed=torch.cat([position, state['pos_embed']], 1), cls_token=state['cls_token'] - position)


def dinov3(state):
    state = {'mask_token': torch.zeros(1, 96), 'rope_embed.periods': torch.ones(8)} | rename(
        state, (r'gamma_(\d)', r'ls\1.gamma'), ('reg_token', 'storage_tokens'))
    for block in range(3):
        place = f'blocks.{block}.attn'
        parts = [state.pop(f'{place}.{name}_bias', torch.zeros(96)) for name in 'qv']
        mask = torch.cat([torch.ones(96), torch.zeros(96), torch.ones(96)])
        state |= {f'{place}.qkv.bias': torch.cat([parts[0], torch.zeros(96), parts[1]]),
                  f'{place}.qkv.bias_mask': mask}
    return state


def openai_clip(state):
    state = rename(state, (r'patch_embed\.proj', 'conv1'), ('pos_embed', 'positional_embedding'),
                   ('norm_pre', 'ln_pre'), (r'^norm\.', 'ln_post.'), (r'\.norm', '.ln_'), (r'qkv\.', 'in_proj_'),
                   (r'attn\.proj', 'attn.out_proj'), (r'mlp\.fc1', 'mlp.c_fc'), (r'mlp\.fc2', 'mlp.c_proj'),
                   (r'^blocks\.', 'transformer.resblocks.'), ('cls_token', 'class_embedding'), ('^', 'visual.'))
    state['visual.class_embedding'] = state['visual.class_embedding'][0, 0]
    state['visual.positional_embedding'] = state['visual.positional_embedding'][0]
    text = {'positional_embedding': torch.zeros(7, 96), 'transformer.resblocks.0.ln_1.weight': torch.ones(96),
            'token_embedding.weight': torch.zeros(9, 96), 'logit_scale': torch.ones(())}
    return text | state | {'visual.proj': torch.zeros(96, 64)}


def open_clip(state):
    return rename(state, ('^', 'visual.trunk.')) | {'text.token_embedding.weight': torch.zeros(9, 96)}


def eva_clip(state):
    return rename(state, ('^', 'visual.')) | {'text.token_embedding.weight': torch.zeros(9, 96)}


def eva02(state):
    state = rename(state, ('fc1_g', 'w1'), ('fc1_x', 'w2'), (r'mlp\.fc2', 'mlp.w3'), (r'mlp\.norm', 'mlp.ffn_ln'))
    return state | {'rope.freqs_cos': torch.zeros(2, 2), 'mask_token': torch.zeros(1, 1, 96),
                    'lm_head.weight': torch.zeros(9, 96)}


def sam(state):
    return rename(state, ('^', 'image_encoder.'), ('mlp.fc', 'mlp.lin')) | {
        'prompt_encoder.no_mask_embed.weight': torch.zeros(1, 9),
        'mask_decoder.iou_token.weight': torch.zeros(1, 9)}


def beit3(state):
    state = rename(state, (r'^patch_embed\.', 'vision_embed.'), ('^cls_token', 'vision_embed.cls_token'),
                   (r'\.attn\.norm\.', '.self_attn.inner_attn_ln.A.'), (r'\.mlp\.norm\.', '.ffn.A.ffn_layernorm.'),
                   (r'\.norm1\.', '.self_attn_layer_norm.A.'), (r'\.norm2\.', '.final_layer_norm.A.'),
                   (r'\.mlp\.', '.ffn.A.'), (r'\.attn\.proj\.', '.self_attn.out_proj.A.'),
                   (r'\.attn\.', '.self_attn.'), (r'^blocks\.', 'encoder.layers.'),
                   ('^pos_embed$', 'encoder.embed_positions.A.weight'), (r'^(?!norm|fc_norm|head)', 'beit3.'))
    for key in [key for key in state if '.qkv.' in key]:
        for name, part in zip('qkv', state.pop(key).chunk(3), strict=True):
            place, kind = key.split('qkv.')
            state |= {f'{place}{name}_proj.A.{kind}': part, f'{place}{name}_proj.B.{kind}': torch.zeros_like(part)}
    positions = 'beit3.encoder.embed_positions.A.weight'
    state[positions] = torch.cat([torch.zeros(2, 96), state[positions][0]])
    return state | {'beit3.text_embed.weight': torch.zeros(9, 96),
                    'beit3.vision_embed.mask_token': torch.zeros(1, 1, 96)}


def mae(state):
    return state | {'mask_token': torch.zeros(1, 1, 32), 'decoder_embed.weight': torch.zeros(32, 96),
                    'decoder_pos_embed': torch.zeros(1, 37, 32), 'decoder_blocks.0.norm1.bias': torch.zeros(32)}


def deit3(state):
    return rename(state, (r'ls(\d)\.gamma', r'gamma_\1'))


def distilled(state):
    return {'model': state | {'head_dist.weight': torch.zeros(9, 96), 'head.weight': torch.zeros(9, 96)}}


def seeded(name, *shape):
    """An array of a scale that fits its name; of one name and shape always the same."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith('running_var'):
        return 1 + noise ** 2
    norm = re.search(r'(scale|(norm\d?|bn)\.weight)$', name)
    return 1 + 0.1 * noise if norm else noise * 0.1 if len(shape) < 2 else noise / (noise.size / max(shape)) ** 0.5


def google_hybrid(layers, width, embed_dim, depth, num_heads, grid):
    """A ResNet and ViT in the names and shapes of Google's `R50+ViT-B_16.npz`, by name."""
    shapes, wide = {}, embed_dim // num_heads

    def norm(place, channels, lead=(1, 1, 1)):
        shapes.update({f'{place}/scale': (*lead, channels), f'{place}/bias': (*lead, channels)})

    def convolve(place, number, side, inner, outer):
        shapes[f'{place}conv{number}/kernel'] = side, side, inner, outer
        norm(f'{place}gn{number}', outer)

    convolve('', '_root', 7, 3, width)
    before = width
    for stage, units in enumerate(layers):
        middle, outer = width * 2 ** stage, 4 * width * 2 ** stage
        for unit in range(units):
            place = f'block{stage + 1}/unit{unit + 1}/'
            convolve(place, 1, 1, before, middle)
            convolve(place, 2, 3, middle, middle)
            convolve(place, 3, 1, middle, outer)
            if unit == 0:
                convolve(place, '_proj', 1, before, outer)
            before = outer
    for block in range(depth):
        place = f'Transformer/encoderblock_{block}'
        norm(f'{place}/LayerNorm_0', embed_dim, ())
        norm(f'{place}/LayerNorm_2', embed_dim, ())
        attention = f'{place}/MultiHeadDotProductAttention_1'
        for part in ('query', 'key', 'value'):
            shapes |= {f'{attention}/{part}/kernel': (embed_dim, num_heads, wide),
                       f'{attention}/{part}/bias': (num_heads, wide)}
        shapes |= {f'{attention}/out/kernel': (num_heads, wide, embed_dim), f'{attention}/out/bias': (embed_dim,)}
        for layer, inner, outer in ((0, embed_dim, 4 * embed_dim), (1, 4 * embed_dim, embed_dim)):
            shapes |= {f'{place}/MlpBlock_3/Dense_{layer}/kernel': (inner, outer),
                       f'{place}/MlpBlock_3/Dense_{layer}/bias': (outer,)}
    norm('Transformer/encoder_norm', embed_dim, ())
    shapes |= {'Transformer/posembed_input/pos_embedding': (1, 1 + grid ** 2, embed_dim), 'cls': (1, 1, embed_dim),
               'embedding/kernel': (1, 1, before, embed_dim), 'embedding/bias': (embed_dim,),
               'pre_logits/kernel': (embed_dim, embed_dim), 'pre_logits/bias': (embed_dim,),
               'head/kernel': (embed_dim, 9), 'head/bias': (9,)}
    return {name: seeded(name, *shape) for name, shape in shapes.items()}


# timm's name, input size of its two, and how its authors write it
FORMATS = [
    ('vit_small_patch14_reg4_dinov2', 56, dinov2_with_registers), ('vit_small_patch16_dinov3', 64, dinov3),
    ('vit_small_patch16_dinov3_qkvb', 64, dinov3), ('vit_base_patch32_clip_224', 64, openai_clip),
    ('vit_base_patch16_clip_quickgelu_224', 64, openai_clip), ('vit_base_patch16_siglip_224', 64, open_clip),
    ('eva02_base_patch16_clip_224', 64, eva_clip), ('eva02_tiny_patch14_224', 56, eva02),
    ('samvit_base_patch16', 64, sam), ('beit3_base_patch16_224', 64, beit3), ('vit_base_patch16_224', 64, mae),
    ('deit3_small_patch16_224', 64, deit3), ('deit_tiny_distilled_patch16_224', 64, distilled)]

"""A trained model as a folder that travels: plain weights, its config, and a card that says what it is.

The files have the names that model hubs expect: model.safetensors, config.json, README.md.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from .carried import read_carried
from .computed import merged_state
from .errors import UserError
from .experiment import describe_crops
from .files import write_atomic, write_json
from .inference import load_model
from .inflation import trained_form
from .keys import sides, unusual
from .untrusted import OTHERS, find_fault, read_json

WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
SCORES = dict(metrics={str: OTHERS}, mean={str: (float, None)}, labels={str: {str: (float, None)}}, cases=dict)


def export_model(checkpoint: dict, path: Path, folder: Path, imports: tuple[str, ...] = (),
                 scores: Path | None = None) -> None:
    """Write a checkpoint's model into a folder.

    Weights that are computed (LoRA's, a separable kernel's) are merged, so that the model is one of plain layers.

    Args:
        checkpoint: what `path` holds.
        imports: modules that it was trained with.
        scores: JSON of tools/test.py or tools/predict.py, for the card.

    Raises:
        UserError: the checkpoint carries no config, or `scores` are none of its labels.
    """
    cfg, data = read_carried(checkpoint, path, imports)
    found = scores and _read_scores(scores, data['labels'])
    model = load_model(cfg, checkpoint, path, 'cpu')
    state = {name: value.contiguous().clone() for name, value in merged_state(model).items()}
    carried, plain = copy.deepcopy(checkpoint['meta']['carried']), read_carried(checkpoint, path, imports)[0]
    for config in (carried['config'], plain):
        _make_plain(config)
    model = load_model(plain, dict(state_dict=state), path, 'cpu')  # whole, or not at all
    step = checkpoint['meta'].get('iter')
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS, save(state, dict(carried=json.dumps(carried))))
    write_json(folder / CONFIG, carried)
    write_atomic(folder / CARD, describe(model, carried, step if isinstance(step, int) else None, found))


def _make_plain(config: Mapping) -> None:
    """The config of a model whose weights are merged."""
    for part in (config['experiment'], config['model'].get('backbone', {})):
        part.pop('tuning', None)
        if trained_form(part.get('inflation') or 'centering'):
            part['inflation'] = 'centering'


def _read_scores(path: Path, labels: list[str]) -> dict:
    remedy = 'name what tools/test.py --out or tools/predict.py has written'
    try:
        scores = read_json(path, remedy)
    except FileNotFoundError:
        raise UserError(f'{path}: file not found; {remedy}') from None
    if fault := find_fault(scores, SCORES):
        raise UserError(f'{path}: no figures of cases ({fault}); {remedy}')
    if list(scores['labels']) != labels[1:]:
        raise UserError(f'{path}: has the labels {", ".join(scores["labels"])}, the model '
                        f'{", ".join(labels[1:])}; name the figures of this model')
    return scores


def describe(model: nn.Module, carried: dict, step: int | None, scores: dict | None) -> str:
    """The model card, Markdown below the front matter that hubs read."""
    data, experiment = carried['data'], carried['config']['experiment']
    channels = ', '.join(data.get('channel_names') or [f'{data["channels"]} channels'])
    modality = data.get('modality', '')
    volumes = f'{modality} volumes' + (f' ({channels})' if channels != modality else '')
    takes = describe_crops(experiment) or (
        f'windows of {experiment["slices"]} slices, stride {experiment["stride"]}, of '
        f'{" x ".join(map(str, sides(experiment["img_size"])))} pixels')
    labels = ', '.join(f'{name} ({number})' for number, name in list(enumerate(data['labels']))[1:])
    source, encoder, trained = carried['source'], _encoder(model), experiment.get('precision') or 'fp32'
    predicts = unusual(experiment, 'inference_precision') or ('tf32' if trained == 'tf32' else 'fp32')
    modules = f' --imports {" ".join(carried["imports"])}' if carried['imports'] else ''
    facts = {
        'Input': f'{volumes}; the network takes {takes}. A volume of any size is segmented at its own resolution.',
        'Intensities': _intensities(data['intensity'].get(experiment['protocol']), model.data_preprocessor),
        'Trained on': f'{data["dataset"]}. {data["citation"]}'.strip(),
        'Encoder': f'{encoder}; the whole model has {sum(map(Tensor.numel, model.parameters())):,} parameters',
        'Started from': 'random weights' if source is None else '; '.join(
            f'{key.replace("_", " ")}: {value}' for key, value in source.items()),
        'Training': ', '.join(f'{key} {experiment[key]}' for key in ('steps', 'batch', 'lr', 'seed')
                              if key in experiment) + (f'; these are the weights of step {step}' if step else ''),
        'Precision': f'trained in {trained}, predicts in {predicts}'}
    parts = ['---\nlicense: other\nlibrary_name: mmseg_plugins\npipeline_tag: image-segmentation\n'
             f'tags: [medical, segmentation, 3d]\ndatasets: [{json.dumps(data["dataset"])}]\n---',
             f'# {encoder.partition(" ")[0]} for {data["dataset"]}',
             f'Segments {labels} in 3D images. For research; it is no medical device.',
             '\n'.join(f'- **{name}:** {text}' for name, text in facts.items()),
             '## Use', f'With this project, whose commands read `{WEIGHTS}` and nothing else:',
             _code('sh', f'python tools/predict.py {WEIGHTS} in.nii.gz out.nii.gz{modules}\n'
                         f'python tools/predict.py {WEIGHTS} --input FOLDER --output FOLDER{modules}')]
    for title, code in load_lines(model, carried).items():
        parts += [title, _code('python', code)]
    parts += ['## Scores', _table(scores) if scores else 'None were given when this was exported.',
              '## Licence', 'The weights derive from the data and the source that are named above, whose licences '
              'hold for them too.']
    return '\n\n'.join(parts) + '\n'


def load_lines(model: nn.Module, carried: dict) -> dict[str, str]:
    """Python that loads the exported files, by what it is of; run where they are."""
    imports = carried['imports']
    lines = {'In Python, as a module of MMSegmentation:': (
        'import mmseg_plugins\nfrom pathlib import Path\nfrom mmseg_plugins.carried import read_carried\n'
        'from mmseg_plugins.inference import load_model\n'
        'from mmseg_plugins.safe_load import load_trained\n'
        f"path = Path('{WEIGHTS}')\n"
        f'cfg, index = read_carried(checkpoint := load_trained(path), path{f", {imports}" if imports else ""})\n'
        "model = load_model(cfg, checkpoint, path, 'cpu')")}
    encoder = getattr(model, 'backbone', None)
    if type(encoder).__name__ == 'InflatedViT' and encoder.lifting is None:
        taps, sizes = sorted(set(encoder.out_indices)), ''.join(
            f', {key}={value!r}' for key, value in encoder.timm_sizes.items())
        lines[f'Its encoder in plain timm; input (B, {encoder.channels} x {encoder.slices}, height, width), the '
              f'slices of a channel side by side, in {list(model.data_preprocessor.scaled)}:'] = (
            'import timm\nfrom safetensors.torch import load_file\n'
            f'encoder = timm.create_model({encoder.name!r}, num_classes=0{sizes})\n'
            f'encoder.prune_intermediate_layers({taps}, prune_norm=True, prune_head=True)\n'
            "encoder.load_state_dict({name.removeprefix('backbone.model.'): value for name, value in\n"
            f"                         load_file('{WEIGHTS}').items() if name.startswith('backbone.model.')}})\n"
            f'maps = encoder.forward_intermediates(windows, {taps}, norm=False, intermediates_only=True)')
    if hasattr(model, 'network'):
        lines['Its network under MONAI, of `volume` (1, channels, slices, height, width) in '
              f'{list(model.data_preprocessor.scaled)}:'] = (
            'from monai.inferers import sliding_window_inference\n'
            f'logits = sliding_window_inference(volume, {list(model.crop)}, 1, model.network, {model.overlap},\n'
            f"                                  mode='gaussian', cval={model.data_preprocessor.scaled[0]})")
    return lines


def _encoder(model: nn.Module) -> str:
    if not hasattr(model, 'backbone'):
        return type(model.network).__name__
    encoder = model.backbone
    sizes = [f'{key.replace("_", " ")} {value}' for key, value in getattr(encoder, 'sizes', {}).items()]
    told = ', '.join(filter(None, [getattr(encoder, 'name', ''), *sizes]))
    return type(encoder).__name__ + (f' ({told})' if told else '')


def _intensities(rule: Any, preprocessor: nn.Module) -> str:
    low, high = preprocessor.scaled
    rule = preprocessor.clip or rule
    whole = (f'{rule[0]:g} to {rule[1]:g}' if isinstance(rule, list | tuple) else
             {'percentiles': 'the 0.5th to the 99.5th percentile of each volume\'s channel',
              'maximum': '0 to the maximum of each volume\'s channel'}.get(rule, str(rule)))
    return f'{whole} become {low:g} to {high:g}'


def _code(language: str, text: str) -> str:
    return f'```{language}\n{text}\n```'


def _table(scores: dict) -> str:
    """Figures by label, and their mean over those that the dataset is reported by."""
    titles = [metric['title'] for metric in scores['metrics'].values()]
    rows = [['label', *titles], ['---'] * (len(titles) + 1)]
    for name, figures in (scores['labels'] | {'**mean**': scores['mean']}).items():
        rows.append([name, *('—' if figures.get(key) is None else f'{figures[key]:.2f}'
                             for key in scores['metrics'])])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows) + f'\n\nOf {len(scores["cases"])} cases.'

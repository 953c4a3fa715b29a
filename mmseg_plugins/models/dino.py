"""Self-distillation without labels: DINO on 2D images or slices (Caron et al. 2021).

The paper's CT-DINO is this objective on CT slices (Zhang et al. 2022, section 4.1).
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from ..acceleration import compile_in_training, lay_channels_last
from ..errors import UserError
from .multi_crop import MultiCrop
from .objective import Objective


class DinoHead(nn.Module):
    """Class token -> scores of prototypes: LayerNorm, three-layer MLP, L2 norm, unit-norm prototypes.

    The LayerNorm stands for the encoder's final one, which InflatedEncoder leaves out. Weights start with
    the standard deviation fan-in ^ -1/2, which is DINO's 0.02 at its width of 2048.

    Args:
        embed_dim: E, the encoder's width.
        hidden: width of the two hidden layers.
        bottleneck: width in which prototypes are compared.
        prototypes: K.

    Input (B, E), output (B, K): cosines, in [-1, 1].
    """

    def __init__(self, embed_dim: int, hidden: int = 2048, bottleneck: int = 256, prototypes: int = 65536):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.LayerNorm(embed_dim), nn.Linear(embed_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden),
            nn.GELU(), nn.Linear(hidden, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features ** -0.5)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=bottleneck ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.mlp(tokens).float()
        with torch.autocast(tokens.device.type, enabled=False):  # the softmax's temperature enlarges rounding
            return linear(normalize(tokens, dim=1), normalize(self.prototypes, dim=1))


@MODELS.register_module()
class DinoPretrainer(Objective):
    """A student learns to give every view of an image what a teacher gives its global views.

    The teacher is the moving average of the student; its outputs are centred and sharpened, so that
    neither one prototype nor all of them alike can win. `backbone` is the teacher's encoder, the one
    that DINO's authors publish and evaluate. It moves at the start of a step, after the optimizer's
    previous one.

    Args:
        backbone: config of an InflatedViT with one slice and a class token.
        head: sizes of DinoHead.
        crops: settings of MultiCrop. Its `local_size` needs an encoder whose input size is free
            (timm's ViT with `sizes=dict(dynamic_img_size=True)`); BEiT's position table is fixed, so
            its local views are enlarged to the full input, which costs as much as global ones.
        steps: optimizer steps of the whole training; the schedules end there.
        accumulate: forward passes per optimizer step; the centre moves with each.
        student_temperature: of the student's softmax.
        teacher_temperature: the teacher's, (at the start, after the warm-up), linear between.
        temperature_warmup: share of the steps.
        momentum: the teacher's at the start; follows a cosine to 1.
        centre_momentum: of the teacher's mean output; the first batch's mean is where it starts.
        compile: whether training compiles both encoders and heads.
        channels_last: memory layout of images and kernels.

    Logged beside the loss, in nats: `teacher_entropy`, the mean entropy of the teacher's outputs, at
    most log K; and `teacher_information`, the entropy of the mean output minus that mean: how much an
    output tells about its image. A collapse of either kind (always one prototype, or all alike) makes it 0.

    Raises:
        UserError: more than one slice, no class token, or local views that the encoder cannot take.
    """

    def __init__(self, backbone: dict, head: dict, crops: dict, steps: int, accumulate: int = 1,
                 student_temperature: float = 0.1, teacher_temperature: Sequence[float] = (0.04, 0.07),
                 temperature_warmup: float = 0.3, momentum: float = 0.996, centre_momentum: float = 0.9,
                 compile: bool = False, channels_last: bool = False, data_preprocessor: dict | None = None):
        super().__init__(backbone, steps, accumulate, data_preprocessor)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.temperature_warmup = temperature_warmup
        self.momentum, self.centre_momentum = momentum, centre_momentum
        self.multi_crop = MultiCrop(**crops)
        encoder = self.backbone.model
        if getattr(encoder, 'cls_token', None) is None:  # registers are none
            raise UserError(f'{backbone["model"]}: DINO needs an encoder with a class token (BEiT, ViT)')
        if self.multi_crop.local_size and not getattr(encoder, 'dynamic_img_size', False):
            raise UserError(f'{backbone["model"]} takes one input size; leave local_size out, or use a ViT '
                            'with sizes=dict(dynamic_img_size=True)')
        self.student = copy.deepcopy(encoder)
        self.head = DinoHead(encoder.num_features, **head)
        self.teacher_head = copy.deepcopy(self.head)
        self.backbone.requires_grad_(False)
        self.teacher_head.requires_grad_(False)
        self.register_buffer('centre', torch.zeros(1, len(self.head.prototypes)))
        self.register_buffer('passes', torch.zeros((), dtype=torch.long))
        if channels_last:
            lay_channels_last(self)
        if compile:
            compile_in_training(self, [self.student.forward_features, encoder.forward_features,
                                       self.head.forward, self.teacher_head.forward])

    def init_weights(self) -> None:
        """Load the source, if there is one, into the teacher; the student starts as its copy."""
        self.backbone.init_weights()
        self.student.load_state_dict(self.backbone.model.state_dict())

    def train(self, mode: bool = True) -> 'DinoPretrainer':
        """The teacher never drops paths."""
        super().train(mode)
        self.backbone.eval()
        self.teacher_head.eval()
        return self

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """One pass: move the teacher, draw views, compare, move the centre."""
        passes = int(self.passes)
        step = passes // self.accumulate
        if passes % self.accumulate == 0:
            self.update_teacher(step / self.steps)
        self.passes += 1
        # A function of seed, pass and process: a resumed run draws what it would have drawn.
        seed = np.random.SeedSequence((torch.initial_seed(), passes, get_rank())).generate_state(1)[0]
        generator = torch.Generator(images.device).manual_seed(int(seed))
        global_views, local_views = self.multi_crop(images, generator)

        with torch.no_grad():
            scores = self.teacher_head(class_token(self.backbone.model, global_views)).float()
            if passes == 0:
                self.update_centre(scores, momentum=0.0)
            cold, warm = self.teacher_temperature
            progress = min(step / max(self.temperature_warmup * self.steps, 1), 1)
            teacher = ((scores - self.centre) / (cold + (warm - cold) * progress)).softmax(1)
            self.update_centre(scores, self.centre_momentum)
            entropy = _entropy(teacher).mean()
            information = _entropy(teacher.mean(0)) - entropy
        tokens = [class_token(self.student, views) for views in (global_views, local_views) if len(views)]
        student = (self.head(torch.cat(tokens)).float() / self.student_temperature).log_softmax(1)

        # Cross-entropy of every teacher view with every student view but itself.
        teacher, student = (rows.unflatten(0, (-1, len(images))) for rows in (teacher, student))
        with torch.autocast(images.device.type, enabled=False):  # half precision would round the sums over K
            pairs = -torch.einsum('tbk,sbk->ts', teacher, student) / len(images)
        others = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
        return dict(loss=pairs[others].mean(), teacher_entropy=entropy, teacher_information=information)

    @torch.no_grad()
    def update_teacher(self, progress: float) -> None:
        """teacher <- m teacher + (1 - m) student, m on a cosine from `momentum` to 1."""
        weight = (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for teacher, student in ((self.backbone.model, self.student), (self.teacher_head, self.head)):
            for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.lerp_(other, weight)

    @torch.no_grad()
    def update_centre(self, scores: Tensor, momentum: float) -> None:
        """Move the centre towards the mean of the teacher's scores (B, K) over all processes."""
        mean = scores.mean(0, keepdim=True)
        all_reduce(mean, op='mean')
        self.centre.lerp_(mean, 1 - momentum)


def class_token(encoder: nn.Module, images: Tensor) -> Tensor:
    """Class token (B, E) after the last block of a timm ViT, without its final norm."""
    return encoder.forward_features(images)[:, 0]


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the last axis, in nats."""
    return torch.special.entr(probabilities).sum(-1)

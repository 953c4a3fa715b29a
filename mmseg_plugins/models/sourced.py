"""What the encoders share: an inner model that starts from a 2D source."""

from collections.abc import Mapping, Sequence

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn

from ..checkpoints import LoadReport, Naming, load_source
from ..errors import UserError, nearest
from ..inflation import check_window, trained_form
from ..keys import check_size


class SourcedEncoder(BaseModule):
    """An encoder over windows whose `model` is loaded from a source, by its `naming`, and inflated.

    What a source has no weights for stands beside `model`.

    Args:
        slices: S, slices per window.
        channels: C, image channels.
        inflation: registered inflation method; matters only with a source.
        source: path of a checkpoint as published, or None for random weights.
        img_size: input height and width in pixels (one number: square).
        init_cfg: mmengine's; leave it out, `source` is the way to load weights.

    Raises:
        UserError: unknown inflation, or a source that does not fit.
    """
    model: nn.Module
    naming: Naming
    takes_forms = False  # of inflation, beside kernels

    def __init__(self, slices: int, channels: int, inflation: str, source: str | None,
                 img_size: int | Sequence[int], init_cfg: dict | None):
        super().__init__(init_cfg)
        if trained_form(inflation) and not self.takes_forms:
            raise UserError(f'inflation {inflation!r} is a trained form, which {type(self).__name__} does not '
                            'take; choose another')
        check_window(slices, channels)
        self.img_size = check_size(img_size)
        self.slices, self.channels = slices, channels
        self.kernel_slices = slices  # those that the patch embedding's kernel spans
        self.inflation, self.source = inflation, source
        self.load_report: LoadReport | None = None

    @property
    def starts_random(self) -> bool:
        """Whether the patch kernel is no source's, so that it has learnt nothing yet."""
        return self.inflation == 'random' or not self.source

    def init_weights(self) -> None:
        """Load and inflate the source; without one, the model's own initialization stays."""
        if self.source and self.load_report is None:
            self.load_report = load_source(self.model, self.naming, self.source, self.kernel_slices, self.channels,
                                           self.inflation)
            print_log(f'source {self.load_report}', logger='current')


def replace_sizes(model: str, published: Mapping, sizes: Mapping | None) -> dict:
    """A model's published sizes with some replaced.

    Raises:
        UserError: names the one that it has not.
    """
    for name in sizes or {}:
        if name not in published:
            raise UserError(f'sizes: {model} takes no {name!r}{nearest(name, published)}')
    return {**published, **(sizes or {})}

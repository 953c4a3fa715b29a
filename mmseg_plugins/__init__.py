"""MMSegmentation plugins: importing this package registers encoders, segmentor, datasets, metric, training."""

from .startup import importing

with importing():
    from . import compat  # noqa: F401  isort: skip  (must come before mmseg is imported)
    from . import datasets, evaluation, models, progress, schedule, training, work_dir
    from .evaluation.metrics import register_metric
    from .inflation import INFLATIONS, inflate_kernel, register_inflation
    from .lifting import LIFTINGS, register_lifting
    from .tuning import TUNINGS, register_tuning

__all__ = ['INFLATIONS', 'LIFTINGS', 'TUNINGS', 'datasets', 'evaluation', 'inflate_kernel', 'models', 'progress',
           'register_inflation', 'register_lifting', 'register_metric', 'register_tuning', 'schedule', 'training',
           'work_dir']

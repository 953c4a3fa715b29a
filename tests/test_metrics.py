"""What a metric must give, and what it may be called."""

import numpy as np
import pytest

from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation import METRICS, Pair, register_metric
from mmseg_plugins.evaluation.metrics import choose_metrics


@pytest.fixture
def faulty():
    register_metric('faulty', higher_is_better=True)(lambda pair: [1.0, np.inf])
    yield METRICS['faulty']
    del METRICS['faulty']


def test_a_metric_must_give_finite_figures_of_every_label_and_have_a_name_of_its_own(faulty):
    for labels in (2, 3):
        with pytest.raises(UserError, match=f"metric 'faulty' gave .* must give {labels} figures"):
            faulty(Pair(np.eye(labels, dtype=int)))
    with pytest.raises(KeyError, match='registered already'):
        register_metric('faulty', higher_is_better=True)(print)
    for name in ('case', 'slices', 'not one'):
        with pytest.raises(UserError, match='choose another name'):
            register_metric(name, higher_is_better=True)(print)
    with pytest.raises(UserError, match="no metric 'fautly'; did you mean 'faulty'"):
        choose_metrics(['fautly'])

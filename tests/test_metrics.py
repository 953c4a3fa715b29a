"""A metric of the user's own: one function in a module of theirs, and it is measured, recorded and compared."""

import json
import sys
import textwrap

import children
import numpy as np
import pytest
import yaml
from conftest import REPO, write_msd

from benchmarks import results
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation import METRICS, Pair, register_metric
from mmseg_plugins.evaluation.metrics import choose_metrics


def test_a_users_metric_is_in_record_frame_and_comparison(tmp_path):
    (tmp_path / 'my_metrics.py').write_text(textwrap.dedent('''
        import numpy as np
        from mmseg_plugins import register_metric

        @register_metric('excess', unit='ml', higher_is_better=False)
        def excess(pair):
            return (pair.confusion.sum(0) - pair.confusion.sum(1)) * np.prod(pair.spacing) / 1000
        '''))
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(dict(
        dataset='hippocampus', configs=dict(beit='configs/mini_beit_centering_hippocampus.py'), source='none',
        imports=['my_metrics'], axes=dict(slices=[1, 3]), seeds=[1], options={'experiment.batch': 2})))
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)

    def call(script, *arguments):
        result = children.run([sys.executable, str(REPO / script), *arguments], tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    call('benchmarks/run_grid.py', '--grid', 'mine.yaml', '--max-iters', '1', '--executor', 'debug')
    out = tmp_path / 'work_dirs/grids/mine-1-steps'
    records = [json.loads(path.read_text()) for path in out.glob('records/*.json')]
    assert [np.shape(record['scores']['figures']['excess']) for record in records] == [(1, 3)] * 2
    assert 'excess (ml)' in (out / 'tables/table_free.csv').read_text().splitlines()[0]
    assert results.load(out).excess.notna().all()
    cells = [record['run'].split('-seed')[0] for record in records]
    printed = call('benchmarks/report.py', str(out), '--compare', *cells)
    assert 'excess (ml), lower is better' in printed and '| Organ | excess (ml) per case |' in printed


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
    with pytest.raises(UserError, match="no metric 'fautly'; did you mean 'faulty'"):
        choose_metrics(['fautly'])

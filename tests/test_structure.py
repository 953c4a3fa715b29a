"""The house: imports point downward, and one room alone knows the paper's tables by name."""

import ast

from conftest import REPO

BENCHMARKS = REPO / 'benchmarks'
FLOORS = ('', 'speed', 'planning', 'executors', 'paper', 'rendering', 'runs', 'grid', 'methods')  # from above


def _package(path) -> str:
    return path.relative_to(BENCHMARKS).parts[0] if path.parent != BENCHMARKS else ''


def test_imports_point_downward():
    """From one package of benchmarks/ to those below it, and to mmseg_plugins, which imports none of them."""
    for path in sorted(BENCHMARKS.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                above, below = _package(path), node.module.split('.')[0]
                assert FLOORS.index(above) < FLOORS.index(below), f'{path}: imports {node.module}'
    for path in (REPO / 'mmseg_plugins').rglob('*.py'):
        assert 'from benchmarks' not in path.read_text(), path


def test_the_papers_rows_and_tables_are_named_in_its_room_alone():
    for path in sorted(BENCHMARKS.rglob('*.py')):
        if _package(path) != 'paper':
            texts = [node.value for node in ast.walk(ast.parse(path.read_text()))
                     if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            assert not [text for text in texts if text in ('2a', '2b', '3', '4a', '4b', '4c', '4d', '5')
                        or text.startswith('Ours')], path

"""YAML as its writer meant it: a key that stands twice, or a file that is no mapping, is refused."""

import itertools
import re
from pathlib import Path

import yaml

from mmseg_plugins.errors import UserError

DEEPEST = 50  # brackets; with them, the time that YAML takes grows by the square


class _Loader(yaml.SafeLoader):
    """Keys must differ, and 1e-3 is a number, as YAML 1.2 has it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode):
                if name.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the key {name.value!r} stands twice; leave one of them out', name.start_mark)
                seen.add(name.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver('tag:yaml.org,2002:float', re.compile(r'[-+]?\d+(\.\d*)?[eE][-+]?\d+$'),
                              list('-+0123456789'))


def read_yaml(path: Path) -> dict:
    """A YAML file's mapping; an empty file's is empty.

    Raises:
        UserError: not readable, not YAML, nested too deep, or not a mapping.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
        depth = max(itertools.accumulate((c in '[{') - (c in ']}') for c in text), default=0)
        if depth > DEEPEST:
            raise UserError(f'{path}: nested {depth} deep, which no file here is; write it anew')
        content = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise UserError(f'{path}: line {error.problem_mark.line + 1}: not valid YAML: {error.problem}') from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: not valid YAML: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict | None):
        raise UserError(f'{path}: must hold a mapping, as `key: value`')
    return content or {}

"""What is written on a command line or in a YAML file is taken as it was meant, or refused."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.grid.yaml_file import read_yaml
from benchmarks.slurm import read_settings
from mmseg_plugins.errors import UserError
from mmseg_plugins.files import write_json
from mmseg_plugins.options import add_amp, add_config_options, format_value, parse_value, path


def parse(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    add_config_options(parser, 'a=1')
    add_amp(parser)
    return parser.parse_args(words).cfg_options


@pytest.mark.parametrize('text, value', [
    ('experiment.source=/data/1,2/a b=c.pth', '/data/1,2/a b=c.pth'), ('experiment.source=2024', '2024'),
    ('experiment.data_root=[x]', '[x]'), ('experiment.source=None', None), ('experiment.lr=1e-3', 1e-3),
    ('experiment.img_size=64,96', (64, 96)), ('model.a=[x,y]', ['x', 'y']), ('model.a=True', True),
    ('model.a=true', True), ('model.a=text', 'text'), ('model.a="x"', 'x'), ('model.a={"b": 1}', {'b': 1}),
    ('model.a=["x y", 1]', ['x y', 1])])
def test_values_are_what_they_look_like_and_paths_are_text(text, value):
    assert list(parse('--cfg-options', text).values()) == [value]


@pytest.mark.parametrize('words, message', [
    (['a=1', 'a=2'], 'a is given twice'), (['a=1', '--cfg-options', 'a=1'], 'a is given twice'),
    (['experiment.precision=fp32', '--amp'], 'experiment.precision is given twice'),
    (['a'], 'a: write it as KEY=VALUE'), (['=1'], '=1: write it as KEY=VALUE'),
    (['a=[x y,z]'], 'a blank within a list'), (['a=[1,(2]'], 'brackets do not match')])
def test_what_could_be_taken_in_two_ways_is_one_line(words, message):
    with pytest.raises(UserError, match=message):
        parse('--cfg-options', *words)


@pytest.mark.parametrize('value', [
    None, True, 3, -0.5, 1e-30, '', 'text', 'None', '12', '1e3', 'a,b', '[x', "it's", ' a ', '"quoted"', 'a=b',
    'é\n', [1, 'x y', None], (2, 3), {'a b': [1]}, 'True', 'false'])
def test_a_value_that_is_printed_is_read_back(value):
    found = parse_value('model.a', format_value('model.a', value))
    assert found == value and type(found) is type(value)
    if isinstance(value, str) and value not in ('', 'None'):
        assert parse_value('experiment.source', format_value('experiment.source', value)) == value


def test_a_path_is_the_same_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', '/home/x')
    assert path('a b,1') == tmp_path / 'a b,1' and path('~/w.pth') == Path('/home/x/w.pth')


@pytest.mark.parametrize('text, message', [
    ('a: 1\nb: 2\na: 3\n', "line 3: .*the key 'a' stands twice"),
    ('a:\n  b: 1\n  b: 1\n', "line 3: .*the key 'b' stands twice"),
    ('- {a: 1, a: 2}\n', "the key 'a' stands twice"), ('"a": 1\na: 2\n', "the key 'a' stands twice"),
    ('a: &a {b: 1}\nc: {<<: *a, <<: *a}\n', "the key '<<' stands twice"),
    ('[1, 2]', 'must hold a mapping'), ('a: [1', 'not valid YAML')])
def test_yaml_that_says_a_thing_twice_or_none_is_one_line(tmp_path, text, message):
    (tmp_path / 'own.yaml').write_text(text)
    with pytest.raises(UserError, match=f'own.yaml: .*{message}'):
        read_yaml(tmp_path / 'own.yaml')


def test_yaml_is_what_its_writer_meant(tmp_path):
    (tmp_path / 'own.yaml').write_text('\ufeffbase: &b {a: 1}\nown: {<<: *b, a: 2}\nlr: 1e-3\nk: 012\n')
    assert read_yaml(tmp_path / 'own.yaml') == dict(base=dict(a=1), own=dict(a=2), lr=1e-3, k=10)


def test_a_clusters_file_is_read_so_too(tmp_path):
    (tmp_path / 'cluster.yaml').write_text('time: 60\ntime: 600\n')
    with pytest.raises(UserError, match="cluster.yaml: line 2: .*'time' stands twice"):
        read_settings(tmp_path / 'cluster.yaml', {})


def test_json_has_null_where_there_is_no_number(tmp_path):
    def strict(word):
        raise AssertionError(word)

    write_json(tmp_path / 'm.json', dict(a=float('nan'), b=[1.5, dict(c=float('nan'))], d=(1, 2)))
    assert json.loads((tmp_path / 'm.json').read_text(), parse_constant=strict) == dict(
        a=None, b=[1.5, dict(c=None)], d=[1, 2])
    with pytest.raises(ValueError, match='Out of range'):
        write_json(tmp_path / 'm.json', dict(a=float('inf')))

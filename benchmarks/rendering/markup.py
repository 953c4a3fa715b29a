"""Tables of text as Markdown and LaTeX."""

from collections.abc import Iterable, Sequence

import pandas as pd

TEX = {letter: f'\\{letter}' for letter in '&%_#${}'} | {
    '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '\\': r'\textbackslash{}', '<': '$<$', '>': '$>$',
    '±': r'$\pm$', '✓': r'$\checkmark$', '✗': r'$\times$', '—': '--',
    '†': r'\dag{}', '‡': r'\ddag{}'}


def to_markdown(table: pd.DataFrame, notes: Sequence[str] = (), rule: str = '---') -> str:
    """GitHub's table syntax, the notes below; `rule` aligns all columns but the first."""
    rules = ['---', *[rule] * (len(table.columns) - 1)]
    rows = [list(table.columns), rules, *table.astype(str).values.tolist()]
    lines = [f'| {" | ".join(cell.replace("|", "/") for cell in row)} |' for row in rows]
    return '\n'.join([*lines, *(f'\n{note}' for note in number_notes(notes))]) + '\n'


def number_notes(notes: Sequence[str]) -> Iterable[str]:
    """As the table refers to them where there are several."""
    return [f'[{number}] {note}' for number, note in enumerate(notes, 1)] if len(notes) > 1 else notes


def to_latex(table: pd.DataFrame, text: str, notes: Sequence[str] = ()) -> str:
    """A booktabs table, the notes below."""
    def escape(cell: str) -> str:
        return ''.join(TEX.get(letter, letter) for letter in cell)

    def width(column: str) -> str:
        return 'p{4cm}' if table[column].astype(str).str.len().max() > 60 else 'l'

    lines = [r'\begin{table}', r'\centering', rf'\caption{{{escape(text)}}}',
             rf'\begin{{tabular}}{{{"".join(map(width, table.columns))}}}', r'\toprule']
    body = [list(table.columns), *table.astype(str).values.tolist()]
    lines += [' & '.join(map(escape, row)) + r' \\' + (r' \midrule' if i == 0 else '')
              for i, row in enumerate(body)]
    below = [rf'\par\smallskip {escape(note)}' for note in number_notes(notes)]
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', *below, r'\end{table}']) + '\n'

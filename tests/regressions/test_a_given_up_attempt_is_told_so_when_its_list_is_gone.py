# ruff: noqa: E501 - a step is a line
"""
an error that says nothing: an attempt that was given up finds the list of items taken away by its successor, and
advises to delete what is kept

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_checkpoint_life:CheckpointInVariables
begin(kind='tuple', pace=2.0, takes=0.02, size=12)
a_try(one={'dies': 0, 'fails': True, 'later': [('none', 'async map', 4, 146)], 'stops': 11, 'how': 'for', 'bad': [], 'given_up_at': ('call', 2), 'seed': 132})
a_try(one={'seed': 155, 'fails': True, 'dies': 8, 'stops': None, 'how': 'map', 'bad': [2, 4, 10], 'later': [('none', 'async map', 2, 96)], 'given_up_at': ('call', 2)})
a_try(one={'given_up_at': ('call', 2), 'seed': 628, 'bad': [2, 4, 10], 'stops': None, 'fails': True, 'later': [('one more', 'batches', 5, 39)], 'dies': 0, 'how': 'for'})
the_list_is_another(then={'stops': 1, 'dies': 0, 'fails': True, 'given_up_at': ('call', 2), 'seed': 556, 'later': [('one less', 'manual', 0, 284)], 'how': 'manual', 'bad': [1, 9, 14]}, what='all but few')
"""


def test_a_given_up_attempt_is_told_so_when_its_list_is_gone() -> None:
    play(SCRIPT)

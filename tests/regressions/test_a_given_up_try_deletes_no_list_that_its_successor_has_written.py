# ruff: noqa: E501 - a step is a line
"""
the list of its items is gone: a given-up try deleted the list that its successor has written

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_checkpoint_life:CheckpointInObjectStorage
begin(kind='Decimal', pace=0.05, size=12, takes=0.0)
a_try(one={'how': 'for', 'bad': [], 'dies': 0, 'stops': None, 'fails': False, 'seed': 0, 'given_up_at': None, 'later': [('none', 'for', 0, 0)]})
a_try(one={'how': 'for', 'bad': [], 'dies': 0, 'stops': None, 'fails': False, 'seed': 0, 'given_up_at': None, 'later': [('none', 'for', 0, 0)]})
a_try(one={'how': 'for', 'bad': [], 'dies': 0, 'stops': None, 'fails': False, 'seed': 0, 'given_up_at': ('call', 1), 'later': [('none', 'for', 0, 0), ('one more', 'for', 1, 0)]})
another_spec(then={'how': 'for', 'bad': [], 'dies': 0, 'stops': None, 'fails': False, 'seed': 0, 'given_up_at': ('call', 4), 'later': [('as at first', 'for', 0, 0)]})
the_list_grows(more=1, then={'how': 'for', 'bad': [], 'dies': 0, 'stops': None, 'fails': False, 'seed': 0, 'given_up_at': None, 'later': [('none', 'for', 0, 0)]})
"""


def test_a_given_up_try_deletes_no_list_that_its_successor_has_written() -> None:
    play(SCRIPT)

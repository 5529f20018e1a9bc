# ruff: noqa: E501 - a step is a line
"""
a stale result: an edit was not noticed, because an earlier release had written the record that the job was taken up by

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_state_machine:TaskLife
begin(on_clear='restart', on_change='restart', on_failed='resubmit', lag=0.0, looks_to_stop=0, moves=False, broken=None, kept_in='task state', tokens='')
start(meanwhile=None, there='dies', until=None)
an_earlier_release_had_it()
start(meanwhile=None, there='dies', until=None)
edit_the_spec()
start(meanwhile='SUCCEEDED', there='goes on', until=None)
"""


def test_an_edit_after_an_earlier_release_had_the_record_is_noticed() -> None:
    play(SCRIPT)

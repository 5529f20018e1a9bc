"""
something left behind: made-1- (cluster.a, token None) is there, and nothing says so: its try died while it cleaned up
what could not be kept

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_once_machine:OnceLife
begin(names='dots', siblings='mapped', values='a dict', token=False, cleanup=True, alive=False, is_async=False)
the_service_is_odd(what='None', work=(0, 'well', 1, []))
an_attempt_loses_its_heartbeat(at='', ends=False, successor='cleanup', work=(0, 'well', 1, []))
a_worker_is_killed(at='', work=(1, 'well', 1, []))
"""


def test_what_could_not_be_kept_and_was_not_cleaned_up_is_told() -> None:
    play(SCRIPT)

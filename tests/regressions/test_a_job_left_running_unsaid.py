"""
a job left running unsaid: execution_timeout struck after a deferral, while the job of a failed trigger was looked at

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.contract.test_lives:ContractLife
begin(case='databricks-submit-run-deferrable', wait='poll', retries=0, policy={'on_timeout': 'detach'})
start(then=[(0, 'nothing'), (0, 'trigger fails'), (0, 'times out')], last='job succeeds', after=None)
"""


def test_a_job_left_running_unsaid() -> None:
    play(SCRIPT)

"""A subclass of an author's, whichever operator it extends, is asked as the provider's operator would ask it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.cases import Bench, Case
from tests.support.names import AirflowSkipException
from tests.support.runner import TaskInstance

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

ASKED_NOTHING = {"sagemaker-pipeline"}
"""The trigger raises for a job that has failed, with the provider's operator too."""


def test_an_authors_execute_complete_has_the_last_word_on_a_job_that_has_failed(case: Case, bench: Bench) -> None:
    if not case.deferrable or case.name in ASKED_NOTHING:
        pytest.skip("no execute_complete is asked")

    class Own(case.ours):  # type: ignore[misc, name-defined]
        def execute_complete(self, context: Any, **told: Any) -> Any:
            try:
                return super().execute_complete(context, **told)
            except Exception as e:
                raise AirflowSkipException("his word") from e

    instance = TaskInstance(lambda: Own(task_id="task", **bench.arguments(), **case.extra))
    instance.on_defer = lambda _: bench.finish(ok=False)
    with pytest.raises(AirflowSkipException, match="his word"):
        instance.attempt()
    assert (bench.jobs(), bench.cancels()) == (1, 0)

"""EMR notebook executions: names that the provider makes up, what counts as done, an internal error with the status 400."""

from __future__ import annotations

import pytest

from resumable.jobs.decision import JobState
from resumable.operators._emr_notebooks import NAME_LENGTH, NotebookExecution
from resumable.operators.emr import ResumableEmrStartNotebookExecutionOperator
from tests.services import Refuse
from tests.services.aws_tokens import EmrNotebooks
from tests.support.aws_tasks import die_after
from tests.support.runner import TaskInstance

pytestmark = pytest.mark.usefixtures("no_waiting")

GIVEN = {"editor_id": "e-1", "relative_path": "a.ipynb", "cluster_id": "j-1", "service_role": "EMR_Notebooks"}


@pytest.fixture
def server(monkeypatch):
    with EmrNotebooks() as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        server.duration = 0
        yield server


def notebook(**more):
    given = {**GIVEN, "wait_for_completion": True, "waiter_delay": 1, **more}
    return TaskInstance(lambda: ResumableEmrStartNotebookExecutionOperator(task_id="task", aws_conn_id=None, **given))


@pytest.mark.parametrize("code", ["InternalServerException", "InternalServerError"])
def test_an_internal_error_with_the_status_400_proves_nothing_and_the_execution_is_looked_up(server, code):
    server.fault("StartNotebookExecution", Refuse(400, body={"__type": code, "message": "boom"}, after_effect=True))
    instance = notebook()
    try:
        instance.attempt()
    except Exception:
        instance.attempt()
    assert (len(server.all), server.count("StartNotebookExecution")) == (1, 1)


def test_a_long_name_of_the_authors_leaves_room_for_the_mark(server):
    instance = notebook(notebook_execution_name="n" * NAME_LENGTH)
    die_after(instance, "http StartNotebookExecution")
    assert len(server.all[0].body["NotebookExecutionName"]) == NAME_LENGTH
    instance.attempt()
    assert len(server.all) == 1


def test_a_name_that_the_provider_makes_up_is_no_part_of_the_job_and_the_authors_is():
    one, other, named = (
        ResumableEmrStartNotebookExecutionOperator(task_id="task", **GIVEN, **more)
        for more in ({}, {}, {"notebook_execution_name": "nightly"})
    )
    values = [NotebookExecution.spec_values(operator) for operator in (one, other, named)]
    assert values[0] == values[1] != values[2]
    assert one.notebook_execution_name != other.notebook_execution_name


def test_every_state_of_the_service_is_known(server):
    words = server._model.shape_for("NotebookExecutionStatus").enum
    states = {word: NotebookExecution(None).classify(word) for word in words}
    assert JobState.UNKNOWN not in states.values()
    assert states["RUNNING"] is JobState.SUCCEEDED  # as the provider's wait has it
    assert states["STOPPED"] is JobState.FAILED


def test_an_execution_that_somebody_stops_fails_the_try_at_the_look_that_sees_it(server):
    server.duration = None
    instance = notebook()
    looks = []

    def stop_it(effect):
        if effect == "http DescribeNotebookExecution":
            looks.append(effect)
            for job in server.running():
                server.stop(job.id)

    with pytest.raises(Exception, match="terminal failure state"):
        instance.attempt(listener=stop_it)
    assert (instance.record["state"], len(server.all)) == ("failed", 1)
    assert len(looks) <= 3

"""An SQL statement goes out once, is found again by its mark, and CLOSED means that it was executed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from airflow.providers.databricks.operators.databricks import DatabricksSQLStatementsOperator

from resumable import LostSightError, RecordError
from resumable.operators.databricks import ResumableDatabricksSQLStatementsOperator
from tests.services import Drop, Refuse
from tests.support.names import STOPPED, AirflowFailException
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

INSERT = "INSERT INTO t SELECT * FROM s"
QUICK = {"task_id": "task", "warehouse_id": "w", "polling_period_seconds": 0, "databricks_retry_delay": 0}
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


def sql(**arguments):
    return TaskInstance(lambda: ResumableDatabricksSQLStatementsOperator(**{**QUICK, "statement": INSERT, **arguments}))


def die_in_the_wait(instance):
    def listen(effect):
        instance.effects.dead = bool(instance.data.get("resumable", {}).get("job")) and effect != "store.set"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def die_in_doubt(instance):
    def listen(effect):
        instance.effects.dead = effect == "http POST /api/2.0/sql/statements"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    assert instance.record["state"] == "submitting"


def finish_when_kept(workspace, instance):
    return lambda effect: effect == "store.set" and instance.record["job"] and workspace.sql.finish()


# -- CLOSED ------------------------------------------------------------------------------------------------------------


@MODES
def test_a_statement_that_was_closed_while_nobody_watched_was_executed_and_the_task_succeeds(workspace, deferrable):
    instance = sql(deferrable=deferrable)
    die_in_the_wait(instance)
    workspace.sql.close_after = 0
    assert instance.attempt() is None
    assert (len(workspace.sql.all), workspace.count("sql/cancel")) == (1, 0)
    assert instance.record["state"] == "succeeded"
    assert instance.xcoms["statement_id"] == instance.record["job"]


@MODES
def test_a_statement_that_is_closed_while_it_is_watched_is_no_failure(workspace, deferrable):
    instance = sql(deferrable=deferrable)
    instance.attempt(listener=lambda effect: effect in ("defer", "xcom statement_id") and workspace.sql.finish("CLOSED"))
    assert instance.record["state"] == "succeeded"


def test_the_providers_own_operator_fails_on_closed(workspace):
    workspace.sql.close_after = 0
    with pytest.raises(Exception, match="CLOSED"):
        TaskInstance(lambda: DatabricksSQLStatementsOperator(**QUICK, statement=INSERT)).attempt()


# -- once --------------------------------------------------------------------------------------------------------------


def test_a_submit_goes_out_once_where_the_providers_hook_repeats_it(workspace):
    workspace.fault("sql/statements", Refuse(503, after_effect=True), times=2)
    workspace.sql.duration = 0
    TaskInstance(lambda: DatabricksSQLStatementsOperator(**QUICK, statement=INSERT)).attempt()
    assert len(workspace.sql.all) == 3
    workspace.fault("sql/statements", Refuse(503, after_effect=True))
    sql().attempt()
    assert len(workspace.sql.all) == 4


def test_other_requests_are_still_repeated_by_the_hook(workspace):
    workspace.sql.duration = 0
    workspace.fault("sql/get", Refuse(503), times=2)
    sql().attempt()
    assert workspace.count("sql/get") == 3


@MODES
def test_a_statement_whose_answer_was_lost_is_found_by_its_mark(workspace, deferrable):
    instance = sql(deferrable=deferrable)
    die_in_doubt(instance)
    instance.attempt(listener=finish_when_kept(workspace, instance))
    (statement,) = workspace.sql.all.values()
    assert statement.payload["statement"] == f"/* resumable:{instance.record['token']} */ {INSERT}"
    assert instance.record["job"] == statement.id
    assert instance.record["place"]["workspace"] == "127.0.0.1"


def test_a_statement_that_the_history_shows_late_is_found_at_the_second_look(workspace):
    instance = sql()
    die_in_doubt(instance)
    workspace.sql.unlisted_reads = 1
    instance.attempt(listener=finish_when_kept(workspace, instance))
    assert len(workspace.sql.all) == 1
    assert workspace.count("sql/history") == 2


def test_an_answer_that_is_lost_while_the_worker_lives_is_cleared_up_in_the_same_try(workspace):
    workspace.fault("sql/statements", Drop())
    workspace.sql.duration = 0
    instance = sql()
    instance.attempt()
    assert (len(workspace.sql.all), workspace.count("sql/statements"), instance.try_number) == (1, 1, 1)


def test_a_submit_that_never_arrived_goes_out_again_when_the_history_has_no_such_mark(workspace):
    workspace.fault("sql/statements", Drop(before_effect=True))
    workspace.sql.duration = 0
    sql().attempt()
    assert len(workspace.sql.all) == 1


def test_strict_leaves_a_submit_that_cannot_be_found_to_a_person(workspace):
    workspace.fault("sql/statements", Drop(before_effect=True))
    with pytest.raises(AirflowFailException, match="strict=True"):
        sql(resume_policy={"strict": True}).attempt()
    assert workspace.sql.all == {}


def test_a_history_that_does_not_answer_is_no_reason_to_submit(workspace):
    instance = sql()
    die_in_doubt(instance)
    with workspace.outage("sql/history"), pytest.raises(LostSightError, match="could not be looked up"):
        instance.attempt()
    assert len(workspace.sql.all) == 1


def test_the_mark_is_found_behind_a_page_of_other_statements_and_no_other_mark_is_taken(workspace):
    instance = sql()
    die_in_doubt(instance)
    for other in ("0" * 48, instance.record["token"][:-1] + "x"):
        DatabricksHook().post_sql_statement({"statement": f"/* resumable:{other} */ {INSERT}", "warehouse_id": "w"})
    quoting = f"SELECT '/* resumable:{instance.record['token']} */'"
    for _ in range(101):
        DatabricksHook().post_sql_statement({"statement": quoting, "warehouse_id": "w"})
    DatabricksHook().post_sql_statement({"statement": INSERT, "warehouse_id": "elsewhere"})
    instance.attempt(listener=finish_when_kept(workspace, instance))
    assert instance.record["job"] == next(iter(workspace.sql.all))
    first, *more = workspace.calls("sql/history")
    assert first.body["filter_by.warehouse_ids"] == "w"
    assert [call.body["page_token"] for call in more] == ["100"]


def test_a_refused_statement_leaves_no_doubt_behind(workspace):
    workspace.fault("sql/statements", Refuse(400, body={"message": "no such warehouse"}))
    instance = sql()
    with pytest.raises(Exception, match="no such warehouse"):
        instance.attempt()
    assert instance.record["state"] == "rejected"
    workspace.sql.duration = 0
    instance.attempt()
    assert workspace.count("sql/history") == 0


# -- what the arguments mean -------------------------------------------------------------------------------------------


@MODES
def test_the_payload_is_the_providers_but_for_the_mark(workspace, deferrable):
    workspace.sql.duration = 0
    given = {**QUICK, "statement": INSERT, "catalog": "c", "schema": "s", "parameters": [{"name": "a", "value": "b"}]}
    given |= {"query_tags": {"team": "x"}, "deferrable": deferrable}
    sql(**given).attempt()
    TaskInstance(lambda: DatabricksSQLStatementsOperator(**given)).attempt()
    ours, theirs = [call.body for call in workspace.calls("sql/statements")]
    assert ours.pop("statement").endswith(f" */ {theirs.pop('statement')}")
    assert ours == theirs


@MODES
def test_timeout_counts_from_the_submission_and_not_from_the_reattachment(workspace, deferrable):
    instance = sql(timeout=3600, deferrable=deferrable)
    die_in_the_wait(instance)
    ends = []
    instance.on_defer = lambda trigger: ends.append(trigger.end_time)
    submitted = datetime.now(timezone.utc) - timedelta(seconds=3000)
    instance.record["submitted_at"] = submitted.isoformat()
    operator = instance.make()
    seen = []
    instance.make = lambda: operator

    def listen(effect):
        seen.append(operator.timeout)
        if effect == "defer" or "sql/statements/" in effect:
            workspace.sql.finish()

    instance.attempt(listener=listen)
    if deferrable:
        assert ends == [] or ends[0] == pytest.approx(submitted.timestamp() + 3600, abs=5)
    assert min(seen) == pytest.approx(600, abs=30)


def test_a_statement_over_its_timeout_is_cancelled_on_a_retry_as_the_provider_cancels_it(workspace):
    instance = sql(timeout=1)
    die_in_the_wait(instance)
    instance.record["submitted_at"] = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat()
    with pytest.raises(Exception, match="timed out"):
        instance.attempt()
    assert workspace.count("sql/cancel") == 1
    assert instance.record["state"] == "failed"


def test_a_task_that_does_not_wait_submits_once(workspace):
    instance = sql(wait_for_termination=False)
    instance.attempt()
    instance.attempt()
    assert len(workspace.sql.all) == 1


@pytest.mark.parametrize("impossible", [7, {}, {"statement_id": "x"}, ["x"]])
def test_a_record_with_an_impossible_id_is_an_error_and_nothing_is_submitted(workspace, impossible):
    instance = sql()
    die_in_the_wait(instance)
    instance.data["resumable"]["job"] = impossible
    with pytest.raises(RecordError, match="Nothing was submitted"):
        instance.attempt()
    assert len(workspace.sql.all) == 1


@pytest.mark.parametrize("statement_id", [None, "", 7])
def test_an_answer_with_an_impossible_id_is_looked_up_by_the_next_try(workspace, statement_id):
    workspace.fault("sql/statements", Refuse(status=200, body={"statement_id": statement_id}, after_effect=True))
    instance = sql()
    with pytest.raises(Exception, match="no statement's id. It may be running"):
        instance.attempt()
    instance.attempt(listener=finish_when_kept(workspace, instance))
    assert len(workspace.sql.all) == 1


# -- a stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "cancels"), [("failed", 1), ("success", 1), ("restarting", 1), ("running", 0)])
def test_a_users_stop_cancels_the_statement_by_one_request_and_an_eviction_does_not(workspace, state, cancels):
    instance = sql()
    sent = []

    def listen(effect):
        if effect == "xcom statement_id" and not sent:
            sent.append(instance.state)
            instance.state = state
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(STOPPED):
        instance.attempt(listener=listen)
    assert workspace.count("sql/cancel") == cancels
    assert instance.record["state"] == ("cancelled" if cancels else "submitted")


@pytest.mark.parametrize(
    ("policy", "state", "cancels"), [("restart", "queued", 0), ("restart", "deferred", 0), ("reattach", "failed", 1)]
)
def test_the_trigger_cancels_a_statement_only_if_a_user_has_ended_the_task(workspace, monkeypatch, policy, state, cancels):
    from resumable import host

    instance = sql(deferrable=True, resume_policy={"on_clear": policy})
    triggers = []
    instance.on_defer = triggers.append
    instance.attempt(listener=lambda effect: effect == "defer" and workspace.sql.finish())
    kwargs = json.loads(json.dumps(triggers[0].serialize()[1]))
    trigger = type(triggers[0])(**kwargs)

    async def state_seen(ti):
        return state

    monkeypatch.setattr(host, "state_seen_by_trigger", state_seen)
    trigger.task_instance = None
    asyncio.run(trigger.on_kill())
    assert workspace.count("sql/cancel") == cancels

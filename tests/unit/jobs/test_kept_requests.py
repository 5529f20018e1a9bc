"""The same token goes out with the same request, whatever has moved meanwhile, and a clear gets out where that cannot be."""

from __future__ import annotations

import copy
import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resumable import host
from resumable.jobs import record, submission
from resumable.jobs.decision import JobState, Recovery
from resumable.jobs.record import KEY, JobRecord, Outcome
from resumable.jobs.rejection import refuses_repetition
from resumable.operators.athena import ResumableAthenaOperator
from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrContainerOperator, ResumableEmrServerlessStartJobOperator
from resumable.operators.redshift_data import ResumableRedshiftDataOperator
from tests.contract import aws_cases
from tests.services import DatabricksSimulator
from tests.support.attempts import Bench
from tests.support.fake_service import CLEARED, Fault, RefusedSubmitError
from tests.support.names import AirflowException
from tests.support.refusals import client_error, http_error
from tests.support.runner import TaskInstance, WorkerDied
from tests.support.specs import written

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)


# -- keeping ----------------------------------------------------------------------------------------------------------

SECRET = "hunter2-hunter2"
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.just(SECRET)
)
requests = st.recursive(leaves, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=20)


def hide(value):
    if isinstance(value, dict):
        return {key: hide(one) for key, one in value.items()}
    return [hide(one) for one in value] if isinstance(value, list) else "***" if value == SECRET else value


@UNHURRIED
@given(requests)
def test_a_request_comes_back_as_it_was_and_its_secrets_are_nowhere(request):
    before = copy.deepcopy(request)
    kept, omitted = submission.without_secrets(request, hide)
    assert SECRET not in json.dumps(kept)
    stored = json.loads(json.dumps(record.packed(kept, omitted)))
    assert submission.filled(*record.unpacked(stored), request) == request == before


@pytest.mark.parametrize(
    "request_",
    [{1: "a number"}, {"at": object()}, {"x": b"bytes"}, {"x": float("nan")}],
    ids=["number", "object", "bytes", "nan"],
)
def test_what_json_would_change_is_not_kept(request_):
    with pytest.raises(ValueError):
        submission.without_secrets(request_, hide)


@pytest.mark.parametrize("own", [{}, {"job": []}, {"job": None}, [], None, "text"], ids=str)
def test_a_request_without_the_secret_of_the_kept_one_is_told(own):
    kept, omitted = submission.without_secrets({"job": {"env": [SECRET]}}, hide)
    with pytest.raises(LookupError):
        submission.filled(kept, omitted, own)


@pytest.mark.parametrize("packed", ["", "no base64!", "eJwrzs9NVSgtTsxLBwAYqgOJ", 7, None], ids=str)
def test_a_packed_request_that_is_damaged_is_an_error_that_the_record_tells_as_one(packed):
    from resumable import RecordError

    bench = Bench()
    bench.die_in_submit({"sql": "x" * 5000})
    data = bench.store.memory.get(KEY)
    data["request"]["packed"] = packed
    with pytest.raises(RecordError, match="Look the job up"):
        JobRecord.from_json(data)


def test_what_airflow_would_mask_is_left_out_by_its_name_and_by_its_value(monkeypatch):
    request = {"clientToken": "provider's own", "env": {"DB_PASSWORD": "x"}, "args": ["--date", "2026-01-01"]}
    kept, omitted = submission.without_secrets(request, host.masked)
    assert kept == {"clientToken": "***", "env": {"DB_PASSWORD": "***"}, "args": ["--date", "2026-01-01"]}
    assert set(omitted) == {("clientToken",), ("env", "DB_PASSWORD")}
    assert not host.holds_secret(kept)


def test_a_small_request_without_secrets_stands_in_the_record_as_the_first_release_reads_it(request):
    bench = Bench()
    bench.die_in_submit({"day": 1})
    data = bench.store.memory.get(KEY)
    assert data["params"] == {"day": 1}
    assert "request" not in data


def test_a_request_that_the_first_release_would_send_wrongly_is_where_that_one_does_not_look():
    """It takes ``params`` for the whole request, and knows no other key."""
    for params, choices in (({"sql": "x" * 5000}, {}), ({"password": SECRET}, {"redact": hide})):
        bench = Bench()
        bench.die_in_submit(params, **choices)
        data = bench.store.memory.get(KEY)
        assert "params" not in data
        assert data["request"]["how"] == "JSON, zlib, base64"


def test_the_rest_of_a_record_with_a_large_request_is_what_a_person_reads():
    bench = Bench()
    bench.die_in_submit({"sql": "select 1 from t " * 4000})
    data = bench.store.memory.get(KEY)
    assert list(data)[-1] == "request"
    assert len(json.dumps({key: value for key, value in data.items() if key != "request"})) < 2000
    assert len(json.dumps(data)) < 4000


def test_a_request_is_forgotten_once_the_answer_is_there():
    bench = Bench()
    bench.start({"sql": "x" * 5000})
    assert not {"params", "request", "is_refused"} & set(bench.store.memory.get(KEY))


# -- repeating --------------------------------------------------------------------------------------------------------


def test_a_repetition_has_the_recorded_request_and_the_secrets_of_its_own_try():
    bench = Bench()
    bench.die_before_submit({"day": 1, "password": SECRET}, redact=hide)
    assert SECRET not in json.dumps(bench.store.memory.get(KEY))
    bench.start({"day": 2, "password": "rotated"}, redact=hide)
    assert [job.params for job in bench.service.jobs] == [{"day": 1, "password": "rotated"}]


@pytest.mark.parametrize("size", [100, 3000, 60_000, 500_000])
def test_a_large_request_is_repeated_as_it_was(size):
    text = "".join(chr(97 + i * i % 26) for i in range(size))
    bench = Bench()
    bench.die_before_submit({"sql": text, "day": 1})
    bench.start({"sql": text, "day": 2})
    assert [job.params["day"] for job in bench.service.jobs] == [1]
    assert len(json.dumps(bench.store.memory.get(KEY))) < 65_535


def incompressible(size):
    import random

    return "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=size))


@pytest.mark.parametrize("day", [1, 2], ids=["the same", "moved"])
def test_of_a_request_beyond_the_stores_limit_a_hash_is_kept_and_the_log_says_what_that_means(day):
    bench, text = Bench(), incompressible(120_000)
    bench.die_in_submit({"sql": text, "day": 1})
    data = bench.store.memory.get(KEY)
    assert set(data["request"]) == {"digest"}
    bench.start({"sql": text, "day": day})
    said = [line for line in bench.log.at("warning") if "too large to be kept" in line]
    assert len(said) == (day == 2)
    assert all("look for it there" in line and "clear the task" in line for line in said)
    assert len(bench.service.jobs) == 1


def test_a_repetition_that_was_refused_keeps_the_request():
    """A refusal for who asks (an expired login) says nothing of the request: the next try repeats the same one."""
    bench = Bench()
    bench.die_before_submit({"day": 1})
    bench.service.faults.arm("submit", Fault.REFUSED)
    with pytest.raises(RefusedSubmitError):
        bench.start({"day": 2})
    bench.start({"day": 3})
    assert [job.params for job in bench.service.jobs] == [{"day": 1}]


def test_an_author_who_mends_what_was_refused_gets_the_mended_request_sent_under_the_same_token():
    bench = Bench()
    bench.die_before_submit({"sql": "wrong"})
    bench.service.faults.arm("submit", Fault.REFUSED)
    with pytest.raises(RefusedSubmitError):
        bench.start({"sql": "wrong"})
    token = bench.record.token
    bench.start({"sql": "right"}, spec=written("spec-b"))
    assert [(job.params, job.token) for job in bench.service.jobs] == [({"sql": "right"}, token)]


# -- a clear ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [written("spec-a"), written("spec-b")], ids=["as it was", "edited"])
@pytest.mark.parametrize("refusals", [0, 1, 2])
def test_a_job_from_before_a_clear_is_never_delivered_after_it(refusals, spec):
    bench = Bench()
    bench.die_in_submit({"day": 1})
    for _ in range(refusals):
        bench.service.faults.arm("submit", Fault.REFUSED)
        with pytest.raises(RefusedSubmitError):
            bench.start({"day": 1})
    bench.service.finish(0)
    bench.clock.now += 3600
    cleared = bench.start({"day": 1}, generation=CLEARED, spec=spec)
    assert cleared.handle.ids == 1
    assert len(bench.service.jobs) == 2


def test_a_job_from_before_a_clear_that_still_runs_is_stopped_first():
    bench = Bench()
    bench.die_in_submit({"day": 1})
    bench.service.faults.arm("submit", Fault.REFUSED)
    with pytest.raises(RefusedSubmitError):
        bench.start({"day": 1})
    cleared = bench.start({"day": 1}, generation=CLEARED)
    assert [job.id for job in bench.service.active()] == [cleared.handle.ids] == [1]


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (client_error(400, code="InvalidRequestException"), True),
        (client_error(409, code="ConflictException"), True),
        (client_error(400, code="AccessDeniedException"), False),
        (client_error(400, code="ExpiredTokenException"), False),
        (client_error(400, code="ThrottlingException"), False),
        (client_error(503), False),
        (http_error(422), True),
        (http_error(409), True),
        (http_error(401), False),
        (http_error(403), False),
        (http_error(429), False),
        (AirflowException("Response: no, Status Code: 400"), True),
        (AirflowException("Response: no, Status Code: 403"), False),
        (ConnectionRefusedError(), False),
        (KeyError("job_id"), False),
    ],
    ids=repr,
)
def test_only_the_services_no_to_the_repetition_itself_gives_a_doubt_up(error, is_one):
    assert refuses_repetition(error) is is_one


class Moves:
    """An AWS operator whose rendered request moves with each try."""

    def __init__(self, name, operator, mutate, monkeypatch, stack):
        make = {name: make for name, _, _, make, _ in aws_cases.CASES}[name]
        self.bench = stack.enter_context(make(monkeypatch))
        tries = []
        moving = type(operator.__name__, (operator,), {"spec_fields": ()})  # what moves is no edit

        def build():
            tries.append(1)
            return moving(task_id="task", **mutate(self.bench.arguments(), len(tries)))

        self.instance = TaskInstance(build, retries=5)

    def attempt(self, dies_in_doubt=False):
        def listen(call):
            if dies_in_doubt and self.bench.submit in call:
                raise WorkerDied(call)
            if call.startswith("http") and self.bench.jobs():
                self.bench.finish()

        return self.instance.attempt(listener=listen)


def athena(pad):
    return lambda given, number: {**given, "query": f"/* try {number} {incompressible(pad)} */ select 1"}


def emr(given, number):
    driver = "sparkSubmit" if "application_id" in given else "sparkSubmitJobDriver"
    more = {"entryPoint": "s3://x", "sparkSubmitParameters": f"--conf spark.openlineage.parentRunId={number}"}
    return {**given, "job_driver": {driver: more}}


def redshift(given, number):
    named = {"cluster_identifier": "c", "secret_arn": "arn:aws:secretsmanager:eu-west-1:1:secret:x"}
    given = {key: value for key, value in given.items() if key != "workgroup_name"}
    return {**given, **named, "sql": f"select {number}"}


MOVING = [
    ("athena", ResumableAthenaOperator, athena(10)),
    ("athena", ResumableAthenaOperator, athena(3000)),
    ("athena", ResumableAthenaOperator, athena(30_000)),
    ("emr-serverless", ResumableEmrServerlessStartJobOperator, emr),
    ("emr-eks", ResumableEmrContainerOperator, emr),
    ("redshift-data", ResumableRedshiftDataOperator, redshift),
]


@pytest.fixture
def moves(monkeypatch):
    import contextlib

    with contextlib.ExitStack() as stack:
        yield lambda name, operator, mutate: Moves(name, operator, mutate, monkeypatch, stack)


@pytest.mark.parametrize(("name", "operator", "mutate"), MOVING)
def test_a_submit_in_doubt_is_repeated_as_it_was_though_the_request_has_moved(moves, name, operator, mutate):
    one = moves(name, operator, mutate)
    with pytest.raises(WorkerDied):
        one.attempt(dies_in_doubt=True)
    one.attempt()
    assert one.bench.jobs() == 1
    assert one.instance.record["state"] == "succeeded"


def test_a_clear_gets_a_task_out_of_a_doubt_that_no_repetition_resolves(moves, caplog):
    caplog.set_level(logging.WARNING)
    one = moves("athena", ResumableAthenaOperator, athena(120_000))
    with pytest.raises(WorkerDied):
        one.attempt(dies_in_doubt=True)
    for _ in range(2):
        with pytest.raises(Exception, match="(?i)do not match|mismatch|invalid"):
            one.attempt()
    assert one.bench.jobs() == 1
    one.instance.clear()
    one.attempt()
    assert one.bench.jobs() == 2
    assert one.instance.record["state"] == "succeeded"


def test_a_cleared_doubt_that_the_service_did_not_refuse_stays_one():
    """A service that does not answer, or refuses who asks, has said nothing of the repetition."""
    bench = Bench(Recovery.REPEAT)
    bench.die_in_submit({"day": 1})
    bench.service.faults.arm("submit", Fault.UNREACHABLE)
    with pytest.raises(OSError):
        bench.start({"day": 1}, generation=CLEARED)
    assert bench.record.in_doubt
    cleared = bench.start({"day": 1}, generation=CLEARED)
    assert bench.service.jobs[0].verdict is JobState.FAILED
    assert [job.id for job in bench.service.active()] == [cleared.handle.ids]


def test_a_doubt_that_is_given_up_is_noted_and_warned_of():
    bench = Bench()
    bench.die_in_submit({"day": 1})
    attempt = bench.attempt(generation=CLEARED)
    attempt.begin()
    token, _ = attempt.intend({"day": 1})
    assert attempt.repeats_after_clear
    assert attempt.give_up_doubt(RefusedSubmitError("do not match"))
    assert bench.record.outcome is Outcome.GONE
    [line] = [line for line in bench.log.at("warning") if token in line and "may still run" in line]
    assert "look for it in the service" in line
    again, _ = attempt.intend({"day": 1})
    assert again != token


def test_a_databricks_request_with_a_secret_is_repeated_with_the_secret_of_the_try(monkeypatch):
    def make():
        cluster = {"spark_env_vars": {"API_TOKEN": f"secret-{len(made)}"}, "num_workers": len(made)}
        made.append(1)
        return Moving(task_id="task", json={"new_cluster": cluster, "spark_python_task": {"python_file": "x"}})

    made, Moving = [], type("Moving", (ResumableDatabricksOperator,), {"spec_fields": ()})
    with DatabricksSimulator() as workspace:
        for name, value in workspace.env().items():
            monkeypatch.setenv(name, value)
        instance = TaskInstance(make)

        def die(call):
            raise WorkerDied(call)

        with pytest.raises(WorkerDied):
            instance.attempt(listener=lambda call: die(call) if "runs/submit" in call else None)
        assert "secret-0" not in json.dumps(instance.data)
        workspace.duration = 0
        instance.attempt()
        first, second = (call.body["new_cluster"] for call in workspace.calls("runs/submit"))
        assert (first["num_workers"], second["num_workers"]) == ("0", "0")
        assert second["spark_env_vars"] == {"API_TOKEN": "secret-1"}

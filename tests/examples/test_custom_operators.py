"""docs/custom-operators.md: each of its classes is executed as written, and keeps what the page says of it."""

from __future__ import annotations

import itertools
import re
import sys
import types
from pathlib import Path

import pytest
from airflow.providers.amazon.aws.operators.glue import GlueDataQualityRuleSetEvaluationRunOperator
from airflow.providers.common.compat.sdk import ResumableJobMixin
from werkzeug import Request, Response

from resumable.jobs.operator import is_durable_class
from tests.services.faults import Drop
from tests.services.server import ServiceServer, json_response
from tests.support.names import AirflowFailException, AirflowRescheduleException, BaseOperator
from tests.support.runner import TaskInstance, WorkerDied
from tests.support.waits import real_sleep

pytestmark = pytest.mark.usefixtures("no_waiting")

PAGE = Path(__file__).parents[2] / "docs" / "custom-operators.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
MAKE, MAKE_MORE, SIX, HOOK, BOTOCORE = range(5)


class Client:
    """A render farm in memory; the same request_id gives the same job."""

    def __init__(self):
        self.jobs, self.requests, self.stopped, self.ids = {}, {}, [], itertools.count()
        self.on_start = self.on_look = lambda: None

    def start(self, scene, request_id=None):
        job = self.requests.setdefault(request_id or f"none-{next(self.ids)}", f"film-{len(self.jobs)}")
        self.jobs.setdefault(job, "QUEUED")
        self.on_start()
        return job

    def state(self, job):
        self.on_look()
        return self.jobs[job]

    def stop(self, job):
        self.stopped.append(job)
        self.jobs[job] = "BROKEN"

    def film(self, job):
        return f"{job}.mp4"

    def finish(self, state="DONE"):
        self.jobs = {job: state if old == "QUEUED" else old for job, old in self.jobs.items()}


def wait(client, job):
    while client.state(job) == "QUEUED":
        real_sleep(0.001)
    if client.jobs[job] != "DONE":
        raise RuntimeError(f"{job} is {client.jobs[job]}")


@pytest.fixture
def farm(monkeypatch):
    """The module `render_farm` that the page imports: a client, and two operators of somebody else."""
    client = Client()

    class RenderOperator(ResumableJobMixin, BaseOperator):
        def __init__(self, *, scene, **kwargs):
            super().__init__(**kwargs)
            self.scene, self.request_id = scene, None

        def execute(self, context):
            return self.execute_resumable(context)

        def submit_job(self, context):
            return client.start(self.scene, self.request_id)

        def get_job_status(self, external_id, context):
            return client.state(external_id)

        def is_job_active(self, status):
            return status == "QUEUED"

        def is_job_succeeded(self, status):
            return status == "DONE"

        def poll_until_complete(self, external_id, context):
            wait(client, external_id)

        def get_job_result(self, external_id, context):
            return client.film(external_id)

    class FilmOperator(BaseOperator):
        template_fields = ("scene",)

        def __init__(self, *, scene, wait=True, **kwargs):
            super().__init__(**kwargs)
            self.scene, self.wait, self.hook = scene, wait, types.SimpleNamespace(start=None)
            self.hook = Hook()

        def execute(self, context):
            job = self.hook.start(self.scene)
            context["ti"].xcom_push(key="job", value=job)
            if self.wait:
                wait(client, job)
            return client.film(job)

    class Hook:
        def start(self, scene, request_id=None):
            return client.start(scene, request_id)

        state, stop = staticmethod(client.state), staticmethod(client.stop)

    module = types.ModuleType("render_farm")
    vars(module).update(client=client, RenderOperator=RenderOperator, FilmOperator=FilmOperator)
    monkeypatch.setitem(sys.modules, "render_farm", module)
    return client


def made_by(block):
    """The class that a block of the page defines."""
    names = {"__name__": f"page_{block}"}
    exec(compile(BLOCKS[block], f"{PAGE.name} block {block}", "exec"), names)
    made = [v for v in names.values() if is_durable_class(v) and v.__module__ == names["__name__"]]
    return made[-1]


def task(block, **arguments):
    operator = made_by(block)
    return TaskInstance(lambda: operator(task_id="task", scene="s", **arguments))


def die(instance, farm, *, in_doubt=False):
    """End an attempt with its job submitted and kept, or with the answer to its submit on the way."""

    def dead():
        instance.effects.dead = True
        raise WorkerDied

    def listen(effect):
        instance.effects.dead = effect == "store.set" and bool(instance.record["job"])

    if in_doubt:
        farm.on_start = dead
    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    farm.on_start = lambda: None


EVERY = pytest.mark.parametrize("block", [MAKE, MAKE_MORE, SIX, HOOK], ids=["make", "make-more", "six-methods", "hook"])


def test_the_page_has_the_blocks_that_are_run_here_and_none_is_longer_than_it_promises():
    assert len(BLOCKS) == 5
    assert [len(block.strip().splitlines()) <= 45 for block in BLOCKS] == [True] * 5
    for block in (HOOK, BOTOCORE):
        body = BLOCKS[block][BLOCKS[block].index("class ") :]
        assert len([line for line in body.splitlines() if line.strip()]) < 30


@EVERY
def test_a_retry_reattaches_and_gives_the_result(farm, block):
    instance = task(block)
    die(instance, farm)
    farm.on_look = farm.finish
    assert instance.attempt() == "film-0.mp4"
    assert len(farm.jobs) == 1


@EVERY
def test_a_job_that_succeeded_meanwhile_is_delivered(farm, block):
    instance = task(block)
    die(instance, farm)
    farm.finish()
    assert instance.attempt() == "film-0.mp4"
    assert len(farm.jobs) == 1


@EVERY
def test_a_failed_job_is_followed_by_one(farm, block):
    instance = task(block)
    die(instance, farm)
    farm.finish("BROKEN")
    instance.failing_attempt()
    farm.on_look = farm.finish
    assert instance.attempt() == "film-1.mp4"
    assert len(farm.jobs) == 2


@pytest.mark.parametrize("block", [MAKE_MORE, SIX, HOOK])
def test_a_submit_whose_answer_was_lost_makes_one_job_where_the_token_is_sent(farm, block):
    instance = task(block)
    die(instance, farm, in_doubt=True)
    farm.on_look = farm.finish
    assert instance.attempt() == "film-0.mp4"
    assert len(farm.jobs) == 1


def test_without_the_token_the_next_try_says_what_to_check(farm):
    instance = task(MAKE)
    die(instance, farm, in_doubt=True)
    with pytest.raises(AirflowFailException, match="Look in the service"):
        instance.attempt()
    assert len(farm.jobs) == 1


@pytest.mark.parametrize("block", [SIX, HOOK])
def test_a_job_that_the_service_forgot_follows_on_missing(farm, block):
    instance = task(block, resume_policy={"on_missing": "fail"})
    die(instance, farm)
    farm.jobs.clear()
    with pytest.raises(AirflowFailException, match="on_missing=fail"):
        instance.attempt()


@pytest.mark.parametrize("block", [MAKE_MORE, HOOK])
def test_a_clear_of_a_running_task_restarts_the_job_where_it_can_be_cancelled(farm, block):
    instance = task(block)
    die(instance, farm)
    instance.clear()
    farm.on_look = lambda: len(farm.jobs) == 2 and farm.finish()
    assert instance.attempt() == "film-1.mp4"
    assert farm.stopped == ["film-0"]


def test_an_adapter_for_a_hook_keeps_the_xcoms_and_may_be_told_not_to_wait(farm):
    instance = task(HOOK, wait=False)
    assert instance.attempt() == instance.attempt() == "film-0.mp4"
    assert instance.xcoms == {"job": "film-0"}
    assert (len(farm.jobs), instance.record["state"]) == (1, "submitted")


def test_an_adapter_for_a_hook_frees_the_slot_with_reschedule(farm):
    instance = task(HOOK, resume_policy={"wait": "reschedule", "wait_interval": 60})
    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            instance.attempt()
    farm.finish()
    assert instance.attempt() == "film-0.mp4"
    assert len(farm.jobs) == 1


# -- botocore ----------------------------------------------------------------------------------------------------------


class RulesOperator(GlueDataQualityRuleSetEvaluationRunOperator):
    """Somebody's operator on a botocore client."""

    def validate_inputs(self):
        """There are no tables here."""


class GlueDataQuality(ServiceServer):
    """Ruleset evaluation runs of AWS Glue, the same ClientToken giving the same run."""

    def __init__(self):
        super().__init__()
        self.runs, self.tokens = {}, {}
        self.result = {"ResultId": "r", "RuleResults": []}

    def parse(self, request: Request):
        return request.headers.get("X-Amz-Target", "?").split(".")[-1], request.get_json(force=True)

    def respond(self, request: Request, operation: str, body: dict) -> Response:
        run = body.get("RunId")
        if operation == "StartDataQualityRulesetEvaluationRun":
            new = f"dqrun-{len(self.runs)}"
            run = self.tokens.setdefault(body.get("ClientToken") or new, new)
            self.runs.setdefault(run, "RUNNING")
        elif run is not None and run not in self.runs:
            return json_response({"__type": "EntityNotFoundException", "message": run}, 400)
        elif operation.startswith("Cancel"):
            self.runs[run] = "STOPPED"
        return json_response({"RunId": run, "Status": self.runs.get(run), "ResultIds": ["r"], "Results": [self.result]})

    def finish(self, state="SUCCEEDED"):
        self.runs = {run: state if old == "RUNNING" else old for run, old in self.runs.items()}


@pytest.fixture
def glue(monkeypatch):
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1"}
    with GlueDataQuality() as server:
        for name, value in {**keys, "AWS_ENDPOINT_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        module = types.ModuleType("data_quality")
        module.RulesOperator = RulesOperator
        monkeypatch.setitem(sys.modules, "data_quality", module)
        yield server


def evaluation(**arguments):
    operator = made_by(BOTOCORE)
    sys.modules[operator.__module__] = types.SimpleNamespace(**{operator.__name__: operator})
    given = {"datasource": {}, "role": "r", "rule_set_names": ["a"], "waiter_delay": 1, "aws_conn_id": None}
    given |= {"show_results": False}
    return TaskInstance(lambda: operator(task_id="task", **given, **arguments))


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("in_doubt", [False, True])
def test_an_adapter_for_a_botocore_call_reattaches(glue, in_doubt, deferrable):
    instance = evaluation(deferrable=deferrable)
    start = "http StartDataQualityRulesetEvaluationRun"

    def listen(effect):
        kept = effect == "store.set" and bool(instance.record["job"])
        instance.effects.dead = effect == start if in_doubt else kept

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    glue.finish()
    assert instance.attempt() == "dqrun-0"
    assert len(glue.runs) == 1
    assert instance.record["state"] == "succeeded"


def test_an_adapter_for_a_botocore_call_makes_one_job_of_a_lost_answer_and_restarts_on_a_clear(glue):
    glue.fault("StartDataQualityRulesetEvaluationRun", Drop())
    instance = evaluation()
    with pytest.raises(WorkerDied):
        instance.attempt(listener=lambda e: setattr(instance.effects, "dead", e == "store.set" and bool(instance.record["job"])))
    assert len(glue.runs) == 1
    instance.clear()
    instance.attempt(listener=lambda effect: len(glue.runs) == 2 and glue.finish())
    assert glue.count("CancelDataQualityRulesetEvaluationRun") == 1
    assert glue.runs == {"dqrun-0": "STOPPED", "dqrun-1": "SUCCEEDED"}


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_verdict_of_the_provider_on_a_job_that_succeeded_fails_the_try_and_does_not_go_round(glue, deferrable):
    glue.result["RuleResults"] = [{"Name": "Rule_1", "Result": "FAIL"}]
    with pytest.raises(Exception, match="failed for one or more rules"):
        evaluation(deferrable=deferrable).attempt(listener=lambda effect: glue.finish())
    assert len(glue.runs) == 1

"""DAG files as people write them: what a retry makes of an edit, and of a file that computes something else at each parse."""

from __future__ import annotations

import logging
import os
import runpy
import signal
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import ResumableJobMixin

from resumable import ResumableMixin, host, make_resumable
from resumable.jobs.spec import edited_fields
from tests.support.names import AirflowRescheduleException, BaseOperator
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

HEAD = """
import os, sys, time, uuid
from datetime import datetime, timedelta, timezone
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.support.names import DAG, Variable

NOTEBOOK = {"notebook_task": {"notebook_path": "/load"}, "existing_cluster_id": "c"}
QUICK = {"task_id": "job", "polling_period_seconds": 0, "databricks_retry_delay": 0}
"""
TAIL = """
with DAG("etl", schedule=None) as dag:
    ResumableDatabricksOperator(json=SPEC, **{**QUICK, **MODE})
"""


class DagFile:
    """A file of DAGs that is parsed for each attempt, as in a worker."""

    def __init__(self, path, mode):
        self.path, self.mode = path, mode

    def write(self, spec, mode=None):
        self.path.write_text(f"{HEAD}\nSPEC = {spec}\nMODE = {self.mode if mode is None else mode!r}\n{TAIL}")

    def parse(self):
        dag = runpy.run_path(str(self.path))["dag"]
        dag.fileloc = str(self.path)  # as Airflow sets it
        return dag.task_dict["job"]


MODES = {"poll": {}, "deferrable": {"deferrable": True}, "reschedule": {"resume_policy": {"wait": "reschedule"}}}


@pytest.fixture(params=MODES.values(), ids=MODES)
def file(request, tmp_path):
    return DagFile(tmp_path / "etl.py", request.param)


def in_the_wait(instance):
    """One start of the task that ends while its job runs: the worker is lost, or the next look is due."""

    def listen(effect):
        known = instance.data.get("resumable", {})
        instance.effects.dead = bool(known.get("job")) and effect.startswith(("http GET", "defer"))

    with pytest.raises((WorkerDied, AirflowRescheduleException)) as end:
        instance.attempt(listener=None if instance.looks else listen)
    if end.type is AirflowRescheduleException:
        instance.try_number -= 1  # that uses up no try


def task(file):
    instance = TaskInstance(file.parse, retries=9)
    instance.text = file.path.read_text
    instance.file = file.path
    instance.looks = "reschedule" in str(file.mode)
    return instance


def ended(instance, workspace):
    for run in workspace.active():
        workspace.finish(run.run_id)
    instance.attempt()


COMPUTED = {
    "now in an f-string": '{**NOTEBOOK, "run_name": f"nightly-{datetime.now(timezone.utc):%FT%T.%f}"}',
    "time": '{**NOTEBOOK, "run_name": "nightly-" + str(time.time_ns())}',
    "uuid4": '{**NOTEBOOK, "run_name": str(uuid.uuid4())}',
    "environment": '{**NOTEBOOK, "run_name": os.environ["GIT_SHA"]}',
    "environment, of which one is the default": '{**NOTEBOOK, "run_name": os.environ.get("GIT_SHA", "sha-1")}',
    "a list of another length": '{**NOTEBOOK, "libraries": [{"whl": f"/w/{n}"} for n in range(time.time_ns() % 7 + 1)]}',
    "a helper's result": '{**NOTEBOOK, "spark_conf": __import__("json").loads(os.environ["CONF"])}',
    "a number": '{**NOTEBOOK, "timeout_seconds": time.time_ns() % 100_000 + 1000}',
    "everything": '__import__("json").loads(os.environ["CONF"]) | {"existing_cluster_id": os.environ["GIT_SHA"]}',
}


@pytest.fixture
def environment(monkeypatch):
    """Other values at each deploy."""

    def deploy(n):
        monkeypatch.setenv("GIT_SHA", f"sha-{n}")
        monkeypatch.setenv("CONF", f'{{"notebook_task": {{"notebook_path": "/p/{n}"}}, "shuffle": "{n * 1001}"}}')

    deploy(1)
    return deploy


@pytest.mark.parametrize("spec", COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize("comment", ["", "  # edited elsewhere"], ids=["same file", "unrelated edit"])
def test_a_job_is_kept_whatever_the_file_computes_at_each_parse(workspace, file, environment, spec, comment):
    file.write(spec)
    instance = task(file)
    for deploy in (1, 2, 3):
        environment(deploy)
        in_the_wait(instance)
        file.write(spec + comment)
    assert (len(workspace.runs), workspace.count("runs/cancel"), len(workspace.active())) == (1, 0, 1)
    environment(4)
    ended(instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (1, 0)


def test_a_job_that_succeeded_unseen_is_delivered_whatever_moved(workspace, file, environment):
    file.write(COMPUTED["uuid4"])
    instance = task(file)
    in_the_wait(instance)
    ended(instance, workspace)
    assert (len(workspace.runs), instance.record["state"]) == (1, "succeeded")


def test_the_line_of_the_log_names_what_moved(workspace, file, environment, caplog, capsys):
    file.write(COMPUTED["uuid4"])
    instance = task(file)
    in_the_wait(instance)
    with caplog.at_level(logging.INFO):
        ended(instance, workspace)
    said = caplog.text + capsys.readouterr().out
    assert "although json.run_name moved: it is computed when the DAG file is parsed, which is no edit" in said


EDITS = {
    "a literal": ('{**NOTEBOOK, "run_name": "nightly"}', '{**NOTEBOOK, "run_name": "weekly"}', "json.run_name"),
    "a template": ('{**NOTEBOOK, "run_name": "{{ ds }}"}', '{**NOTEBOOK, "run_name": "{{ ts }}"}', "json.run_name"),
    "beside what is computed": (
        '{**NOTEBOOK, "run_name": str(uuid.uuid4()), "timeout_seconds": 60 * 60}',
        '{**NOTEBOOK, "run_name": str(uuid.uuid4()), "timeout_seconds": 60 * 90}',
        "json.timeout_seconds",
    ),
    "a constant of the module": (
        "NOTEBOOK",
        '(NOTEBOOK.update(existing_cluster_id="d"), NOTEBOOK)[1]',
        "json.existing_cluster_id",
    ),
    "a key more": ("NOTEBOOK", '{**NOTEBOOK, "tags": {"team": "etl"}}', "json.tags"),
}


@pytest.mark.parametrize(("before", "edited", "name"), EDITS.values(), ids=EDITS)
def test_a_real_edit_restarts_the_job_once_also_with_a_stale_worker_in_between(
    workspace, file, before, edited, name, caplog, capsys
):
    file.write(before)
    instance = task(file)
    in_the_wait(instance)
    with caplog.at_level(logging.INFO):
        for spec in (edited, before, edited, before):
            file.write(spec)
            in_the_wait_of_the(2, instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel"), len(workspace.active())) == (2, 1, 1)
    said = caplog.text + capsys.readouterr().out
    assert f"the author changed {name}, on_change=restart" in said


def in_the_wait_of_the(number, instance, workspace):
    """One start of the task's next try that ends while its n-th job runs."""
    if instance.looks:  # the try before was lost between two looks
        instance.try_number += 1

    def listen(effect):
        is_there = len(workspace.runs) == number and instance.record["job"] is not None and len(workspace.active()) == 1
        instance.effects.dead = is_there and effect.startswith(("http GET", "defer"))

    with pytest.raises((WorkerDied, AirflowRescheduleException)) as end:
        instance.attempt(listener=None if instance.looks else listen)
    if end.type is AirflowRescheduleException:
        instance.try_number -= 1


def test_within_a_try_an_edit_restarts_nothing(workspace, tmp_path):
    file = DagFile(tmp_path / "etl.py", MODES["reschedule"])
    file.write(EDITS["a literal"][0])
    instance = task(file)
    in_the_wait(instance)
    file.write(EDITS["a literal"][1])
    in_the_wait(instance)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (1, 0)
    in_the_wait_of_the(2, instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (2, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"polling_period_seconds": 0}, {"polling_period_seconds": 0, "databricks_retry_limit": 7}),
        ({"wait_for_termination": True}, {"databricks_conn_id": "databricks_default"}),
        ({"retries": 1}, {"retries": 2, "retry_delay": 5, "pool": "other"}),
    ],
)
def test_an_edit_of_how_the_job_is_waited_for_keeps_it(workspace, tmp_path, one, other):
    file = DagFile(tmp_path / "etl.py", {})
    file.write("NOTEBOOK", one)
    instance = task(file)
    in_the_wait(instance)
    file.write("NOTEBOOK", other)
    ended(instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (1, 0)


def test_an_eviction_hands_the_task_back_and_the_next_start_keeps_the_job(workspace, tmp_path, environment):
    file = DagFile(tmp_path / "etl.py", {})
    file.write(COMPUTED["environment"])
    instance = task(file)

    def evict(effect):
        if instance.data.get("resumable", {}).get("job") and effect.startswith("http GET"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(AirflowRescheduleException):
        instance.attempt(listener=evict)
    instance.try_number -= 1
    environment(2)  # a deploy is what evicts workers, and it brings another image
    file.write(COMPUTED["environment"] + "  # edited elsewhere")
    ended(instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (1, 0)


# -- custom operators ----------------------------------------------------------------------------------------

CUSTOM = """
import os, uuid
from tests.support.names import DAG
from {module} import {name}

with DAG("etl", schedule=None) as dag:
    {name}(task_id="job", sql={sql}, note={note}, poll_interval={poll})
"""


class Jobs:
    """A service in memory."""

    def __init__(self):
        self.states, self.cancelled, self.on_look = [], 0, lambda: None

    def look(self, job):
        self.on_look()
        return self.states[job]


JOBS = Jobs()


class Methods:
    """What an operator of one's own has, on whichever mixin."""

    template_fields = ("sql", "note", "poll_interval")

    def execute(self, context):
        return self.execute_resumable(context)

    def submit_job(self, context):
        JOBS.states.append("RUNNING")
        return len(JOBS.states) - 1

    def get_job_status(self, external_id, context):
        return JOBS.look(external_id)

    def is_job_active(self, status):
        return status == "RUNNING"

    def is_job_succeeded(self, status):
        return status == "DONE"

    def poll_until_complete(self, external_id, context):
        looks = 0
        while self.is_job_active(self.get_job_status(external_id, context)):
            looks += 1
            assert looks < 1000, "the test does not end this job"

    def get_job_result(self, external_id, context):
        return external_id

    def cancel_job(self, external_id, context):
        JOBS.cancelled += 1
        JOBS.states[external_id] = "STOPPED"


class Custom(Methods, ResumableMixin, BaseOperator):
    def __init__(self, *, sql, note=None, poll_interval=5, **kwargs):
        super().__init__(**kwargs)
        self.sql, self.note, self.poll_interval = sql, note, poll_interval


class Theirs(Methods, ResumableJobMixin, BaseOperator):
    def __init__(self, *, sql, note=None, poll_interval=5, **kwargs):
        super().__init__(**kwargs)
        self.sql, self.note, self.poll_interval = sql, note, poll_interval


Adapted = make_resumable(Theirs)
KINDS = pytest.mark.parametrize("name", ["Custom", "Adapted"])


@pytest.fixture(autouse=True)
def jobs():
    JOBS.__init__()
    return JOBS


def custom(tmp_path, name, **arguments):
    path = tmp_path / "etl.py"

    def write(**changed):
        given = {"sql": "'select 1'", "note": "None", "poll": "5", **arguments, **changed}
        path.write_text(CUSTOM.format(module=__name__, name=name, **given))

    def parse():
        dag = runpy.run_path(str(path))["dag"]
        dag.fileloc = str(path)
        return dag.task_dict["job"]

    write()
    instance = TaskInstance(parse, retries=9)
    instance.text, instance.file, instance.write = path.read_text, path, write
    return instance


def lost(instance):
    def die():
        instance.effects.dead = True
        raise WorkerDied("in the wait")

    JOBS.on_look = die
    with pytest.raises(WorkerDied):
        instance.attempt()
    JOBS.on_look = lambda: None


def done(instance):
    JOBS.on_look = lambda: JOBS.states.__setitem__(-1, "DONE")
    return instance.attempt()


@KINDS
def test_a_custom_operators_job_is_kept_whatever_is_computed_and_however_it_is_polled(tmp_path, name):
    instance = custom(tmp_path, name, note="str(uuid.uuid4())")
    lost(instance)
    instance.write(poll="60")
    assert done(instance) == 0
    assert (len(JOBS.states), JOBS.cancelled) == (1, 0)


@KINDS
def test_an_edit_of_a_custom_operator_restarts_its_job_once(tmp_path, name):
    instance = custom(tmp_path, name, note="str(uuid.uuid4())")
    lost(instance)
    for sql in ("select 2", "select 1"):
        instance.write(sql=repr(sql))
        JOBS.on_look = lambda: None
        lost_at_the_second(instance)
    assert (len(JOBS.states), JOBS.cancelled) == (2, 1)


def lost_at_the_second(instance):
    def die():
        if len(JOBS.states) == 2 and instance.record["job"] == 1:
            instance.effects.dead = True
            raise WorkerDied("in the wait")

    JOBS.on_look = die
    with pytest.raises(WorkerDied):
        instance.attempt()


@KINDS
def test_a_file_that_is_gone_is_no_edit(tmp_path, name):
    instance = custom(tmp_path, name)
    lost(instance)
    operator = instance.make()
    operator.sql = "select 2"
    operator.dag.fileloc = str(tmp_path / "dags.zip" / "etl.py")
    ti = SimpleNamespace(dag_id="etl", run_id="run", task_id="job", map_index=-1)
    assert not edited_fields(operator._resumable.spec({"ti": ti}), instance.make()._resumable.spec({"ti": ti}))


@KINDS
def test_what_cannot_be_told_is_no_edit_and_no_error(tmp_path, name):
    operator = custom(tmp_path, name).make()
    assert not operator._resumable.spec({}).fields  # a context without a task instance

    def broken(_):
        raise LookupError("needs a connection")

    type(operator).template_fields = ("sql", "odd")
    type(operator).odd = property(broken)
    try:
        spec = operator._resumable.spec({"ti": SimpleNamespace(dag_id="etl", run_id="run", task_id="job", map_index=-1)})
    finally:
        type(operator).template_fields = Methods.template_fields
        del type(operator).odd
    assert spec.text
    assert spec.fields["odd"] == "?????~?????"


# -- mapped tasks ----------------------------------------------------------------------------------------------------

MAPPED = """
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.support.names import DAG, BaseOperator

NOTEBOOK = {{"notebook_task": {{"notebook_path": "/load"}}, "existing_cluster_id": "c"}}
with DAG("etl", schedule=None, default_args={{"libraries": [{{"whl": "/w"}}]}}) as dag:
    up = BaseOperator(task_id="up").output
    {expand}
"""
OVER = {
    "expand": "ResumableDatabricksOperator.partial(task_id='job', polling_period_seconds=0, json=NOTEBOOK).expand(run_name=up)",
    "expand, of two": (
        "ResumableDatabricksOperator.partial(task_id='job', polling_period_seconds=0, json=NOTEBOOK)"
        ".expand(run_name=up, timeout_seconds=[60])"
    ),
    "expand_kwargs": (
        "ResumableDatabricksOperator.partial(task_id='job', polling_period_seconds=0, json=NOTEBOOK)"
        ".expand_kwargs(up.map(lambda item: {'run_name': item}))"
    ),
}


class MappedFile:
    """A file with a mapped task, of which one instance runs; `items` is what its upstream task has returned."""

    def __init__(self, path, expand, items, index=0):
        self.path, self.items, self.index = path, items, index
        path.write_text(MAPPED.format(expand=expand))

    def parse(self):
        dag = runpy.run_path(str(self.path))["dag"]
        dag.fileloc = str(self.path)
        task = next(task for task in dag.tasks if task.task_id.endswith("job"))
        names = {"map_index": self.index, "task_id": task.task_id, "dag_id": "etl", "run_id": "run", "is_mapped": True}
        ti = SimpleNamespace(**names, task=task, xcom_pull=lambda **_: self.items, _upstream_map_indexes={})
        context = {
            "ti": ti,
            "run_id": "run",
            "task": task,
            "dag": dag,
            "dag_run": SimpleNamespace(conf={}),
            "expanded_ti_count": 2,
        }
        task.render_template_fields(context)
        return context["task"]


def mapped_task(file):
    instance = TaskInstance(file.parse, retries=9, map_index=file.index)
    instance.text, instance.file, instance.looks = file.path.read_text, file.path, False
    return instance


@pytest.mark.skipif(not host.has_sdk(), reason="Airflow 2 resolves items by its database")
@pytest.mark.parametrize("expand", OVER.values(), ids=OVER)
def test_another_item_from_upstream_restarts_the_job_of_a_mapped_task_once(workspace, tmp_path, expand, caplog, capsys):
    file = MappedFile(tmp_path / "etl.py", expand, ["a", "b"])
    instance = mapped_task(file)
    in_the_wait(instance)
    in_the_wait(instance)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (1, 0)
    file.items = ["b", "a"]  # upstream was cleared, and has found them in another order
    with caplog.at_level(logging.INFO):
        in_the_wait_of_the(2, instance, workspace)
    assert "run_name (from upstream)" in caplog.text + capsys.readouterr().out
    file.items = ["b", "c"]
    ended(instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (2, 1)


@pytest.mark.parametrize("expand", OVER.values(), ids=OVER)
def test_what_upstream_gave_is_told_from_what_the_file_gives(tmp_path, expand):
    path = tmp_path / "etl.py"
    path.write_text(MAPPED.format(expand=expand))
    dag = runpy.run_path(str(path))["dag"]
    dag.fileloc = str(path)
    (task,) = (task for task in dag.tasks if task.task_id == "job")
    more = {"timeout_seconds": 60} if "timeout_seconds" in expand else {}
    ti = SimpleNamespace(dag_id="etl", run_id="run", task_id="job", map_index=0)
    one, other = (task.unmap({"run_name": item, **more})._resumable.spec({"ti": ti}) for item in ("a", "b"))
    assert set(one.items) == {"run_name"}
    assert edited_fields(one, other) == ("run_name (from upstream)",)


PARSED = {
    "written": ("expand(run_name=['a', 'b'])", "expand(run_name=['z', 'a', 'b'])", 2),
    "written, by kwargs": ("expand_kwargs([{'run_name': 'a'}])", "expand_kwargs([{'run_name': 'z'}])", 2),
    "computed": (
        "expand(run_name=[str(__import__('uuid').uuid4()) for _ in range(3)])",
        "expand(run_name=[str(__import__('uuid').uuid4()) for _ in range(3)])  # edited",
        1,
    ),
}


@pytest.mark.parametrize(("one", "other", "runs"), PARSED.values(), ids=PARSED)
def test_the_items_that_the_file_itself_holds_count_like_any_other_value(workspace, tmp_path, one, other, runs):
    partial = "ResumableDatabricksOperator.partial(task_id='job', polling_period_seconds=0, json=NOTEBOOK)."
    file = MappedFile(tmp_path / "etl.py", partial + one, [])
    instance = mapped_task(file)
    in_the_wait(instance)
    MappedFile(file.path, partial + other, [])
    in_the_wait_of_the(runs, instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (runs, runs - 1)


GROUP = """
    from airflow.sdk import task_group

    @task_group
    def each(item):
        ResumableDatabricksOperator(
            task_id="job", polling_period_seconds=0, json={**NOTEBOOK, "run_name": item, "tags": {"at": "{{ run_id }}"}}
        )
    each.expand(item=ITEMS)
"""


@pytest.mark.skipif(not host.has_sdk(), reason="Airflow 2 resolves items by its database")
@pytest.mark.parametrize(
    ("over", "moved", "runs"),
    [
        ("up", (["a", "b"], ["c", "b"]), 2),
        ("up", (["a", "b"], ["a", "c"]), 1),
        ("['a', 'b']", "['z', 'b']", 2),
        ("[str(__import__('uuid').uuid4()), 'b']", "[str(__import__('uuid').uuid4()), 'b', 'c']", 1),
    ],
    ids=["another item from upstream", "another one's item", "edited in the file", "computed in the file"],
)
def test_a_task_in_a_mapped_task_group_has_its_group_s_item(workspace, tmp_path, over, moved, runs):
    def write(items, source):
        file.items = items
        file.path.write_text(MAPPED.format(expand=GROUP.replace("ITEMS", source)))

    file = MappedFile(tmp_path / "etl.py", "pass", [])
    from_upstream = over == "up"
    write(moved[0] if from_upstream else [], over)
    instance = mapped_task(file)
    in_the_wait(instance)
    write(moved[1] if from_upstream else [], over if from_upstream else moved)
    in_the_wait_of_the(runs, instance, workspace)
    assert (len(workspace.runs), workspace.count("runs/cancel")) == (runs, runs - 1)

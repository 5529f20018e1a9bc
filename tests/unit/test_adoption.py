"""Tasks of the providers' own operators that airflow.cfg makes durable: nobody sees a difference but who loses a worker."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime

import pytest
from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

from resumable import ResumableMixin, adoption, host
from resumable.cli.main import main
from resumable.jobs.operator import is_durable_class
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.support import many_dags
from tests.support.names import DAG, DagSerialization
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
QUICK = {"task_id": "task", "polling_period_seconds": 0, "databricks_retry_delay": 0}


@pytest.fixture
def configured(monkeypatch):
    def set_(**options):
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__RESUMABLE__{name.upper()}", value)

    set_(adopt="all")
    return set_


def dag_of(make, tags=()):
    with DAG("etl", start_date=datetime(2026, 1, 1), schedule=None, tags=list(tags)) as dag:
        make()
    return dag


def apply(dag):
    """What Airflow does when it has parsed a DAG."""
    for task in dag.tasks:
        adoption.adopt(task)
    return dag


def made(cls=DatabricksSubmitRunOperator, tags=(), **arguments):
    """The task as it is after its DAG was parsed."""
    arguments = {**QUICK, **({"json": NOTEBOOK} if cls is DatabricksSubmitRunOperator else {}), **arguments}
    dag = apply(dag_of(lambda: cls(**arguments), tags))
    return dag.task_dict[arguments["task_id"]]


def is_ours(task):
    cls = task.operator_class if type(task).__name__ == "MappedOperator" else type(task)
    return is_durable_class(cls)


def serialised(dag):
    return json.dumps(DagSerialization.to_dict(dag), sort_keys=True, default=str)


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_nothing_is_adopted_where_airflow_cfg_names_nothing():
    from resumable.adopting import task_policy

    dag = dag_of(lambda: DatabricksSubmitRunOperator(**QUICK, json=NOTEBOOK))
    task_policy(dag.tasks[0])
    assert type(dag.task_dict["task"]) is DatabricksSubmitRunOperator


@pytest.mark.parametrize(
    ("adopt", "cls", "is_adopted"),
    [
        ("all", DatabricksSubmitRunOperator, True),
        ("databricks", DatabricksSubmitRunOperator, True),
        ("emr, glue", DatabricksSubmitRunOperator, False),
        ("emr,databricks", DatabricksSubmitRunOperator, True),
        ("DatabricksSubmitRunOperator", DatabricksSubmitRunOperator, True),
        ("DatabricksRunNowOperator", DatabricksSubmitRunOperator, False),
        ("airflow.providers.databricks.operators.databricks.DatabricksSubmitRunOperator", DatabricksSubmitRunOperator, True),
        ("data", DatabricksSubmitRunOperator, False),
    ],
)
def test_airflow_cfg_says_which_operators_are_taken(configured, adopt, cls, is_adopted):
    configured(adopt=adopt)
    assert is_ours(made(cls)) == is_adopted


@pytest.mark.parametrize(
    ("dags", "skip", "tags", "is_adopted"),
    [
        ("etl.*", "", (), True),
        ("sales.*", "", (), False),
        ("sales.*, etl.task", "", (), True),
        ("", "etl.task", (), False),
        ("etl.*", "*.task", (), False),
        ("tag:durable", "", ("durable",), True),
        ("tag:durable", "", ("other",), False),
        ("", "tag:fragile", ("fragile",), False),
    ],
)
def test_patterns_and_tags_say_which_tasks_are_taken(configured, dags, skip, tags, is_adopted):
    configured(adopt_dags=dags, adopt_skip=skip)
    assert is_ours(made(tags=tags)) == is_adopted


def test_a_subclass_of_a_users_own_stays_as_it_is(configured):
    class Nightly(DatabricksSubmitRunOperator):
        pass

    assert type(made(Nightly, json=NOTEBOOK)) is Nightly


def test_an_author_who_gave_durable_false_is_heeded(configured):
    pytest.importorskip("airflow.sdk.bases.resumablejobmixin", reason="the provider has no durable= there")
    assert not is_ours(made(durable=False))
    assert is_ours(made(durable=True))


def test_a_durable_operator_of_ours_is_left_alone(configured):
    task = made(ResumableDatabricksOperator, json=NOTEBOOK, resume_policy={"on_clear": "reattach"})
    assert type(task) is ResumableDatabricksOperator
    assert task.resume_policy.on_clear.value == "reattach"


def test_every_ready_made_operator_is_found_by_its_providers_class():
    from importlib import import_module

    for service in adoption.services():
        for ours in vars(import_module(f"resumable.operators.{service}")).values():
            if is_durable_class(ours) and ours.__name__.startswith("Resumable"):
                theirs = adoption.provider_class(ours)
                assert is_durable_class(adoption.durable_class(theirs))
                assert adoption._adopted(adoption.durable_class(theirs), theirs).__name__ == theirs.__name__


# -- what everybody else sees -----------------------------------------------------------------------------------------


def test_class_name_module_and_arguments_stay_the_providers(configured):
    task = made(retries=4, pool="small", json={"a": "{{ ds }}"})
    assert is_ours(task)
    assert (task.task_type, type(task).__name__, type(task).__module__) == (
        "DatabricksSubmitRunOperator",
        "DatabricksSubmitRunOperator",
        DatabricksSubmitRunOperator.__module__,
    )
    assert isinstance(task, DatabricksSubmitRunOperator)
    assert (task.retries, task.pool, task.json) == (4, "small", {"a": "{{ ds }}"})
    assert [type(link) for link in task.operator_extra_links] == [
        type(link) for link in DatabricksSubmitRunOperator.operator_extra_links
    ]


def test_another_policy_that_changes_the_task_afterwards_changes_ours(configured):
    dag = dag_of(lambda: DatabricksSubmitRunOperator(**QUICK, json=NOTEBOOK))
    (theirs,) = dag.tasks
    adoption.adopt(theirs)
    theirs.queue = "spark"
    ours = dag.task_dict["task"]
    assert ours is theirs
    assert ours.queue == "spark"
    ours.retries = 7
    assert theirs.retries == 7


def test_a_group_has_the_same_task_as_its_dag(configured):
    dag = apply(dag_of(lambda: DatabricksSubmitRunOperator(**QUICK, json=NOTEBOOK)))
    assert dag.task_group.children["task"] is dag.task_dict["task"]


@pytest.mark.parametrize("files", [60, pytest.param(500, marks=pytest.mark.catalog)])
def test_dags_are_serialised_as_without_adoption(configured, tmp_path, files):
    many_dags.write(tmp_path, files)
    with adoption.suspended():
        bag = host.dag_bag(str(tmp_path))
    assert not bag.import_errors
    adopted = 0
    for dag in bag.dags.values():
        before = serialised(dag)
        apply(dag)
        adopted += sum(is_ours(task) for task in dag.tasks)
        if "reschedule" not in vars(ResumableMixin):  # where the scheduler has to be told (2.11, 3.0)
            assert serialised(dag) == before
    assert adopted > 1.5 * files


def test_a_mapped_task_makes_task_instances_of_ours(configured):
    dag = apply(dag_of(lambda: EmrAddStepsOperator.partial(task_id="task", job_flow_id="j").expand(steps=[[{}], [{}]])))
    task = dag.task_dict["task"]
    assert is_ours(task)
    assert task.task_type == "EmrAddStepsOperator"
    instance = task.unmap({"steps": [{"Name": "a"}]})
    assert is_ours(instance)
    assert (instance.steps, instance.job_flow_id, instance.resume_policy.on_clear.value) == ([{"Name": "a"}], "j", "restart")


def test_the_scheduler_heeds_the_date_of_a_hand_back_of_a_mapped_task_too(configured):
    if host.has_sdk():
        pytest.skip("it does of any task there, or of none that is mapped (3.0)")
    dag = apply(dag_of(lambda: EmrAddStepsOperator.partial(task_id="task", job_flow_id="j").expand(steps=[[{}], [{}]])))
    assert "ReadyToRescheduleDep" in {type(dep).__name__ for dep in dag.task_dict["task"].deps}


def test_what_adoption_needs_is_imported_before_a_dag_processor_forks(monkeypatch, configured):
    from types import SimpleNamespace

    from resumable.cleanup import listener

    warmed = []
    monkeypatch.setattr(adoption, "warm_up", lambda: warmed.append(1))
    listener.on_starting(SimpleNamespace(job_type="TriggererJob"))
    assert not warmed
    listener.on_starting(SimpleNamespace(job_type="DagProcessorJob"))
    assert warmed
    monkeypatch.delenv("AIRFLOW__RESUMABLE__ADOPT")
    listener.on_starting(SimpleNamespace(job_type="DagProcessorJob"))
    assert warmed == [1]


def test_a_provider_that_is_not_installed_keeps_no_dag_from_being_parsed(configured, monkeypatch):
    def missing(provider):
        raise ImportError("no such module")

    monkeypatch.setattr(adoption, "durable_class", missing)
    assert type(made()) is DatabricksSubmitRunOperator


def test_an_adopted_task_can_be_copied_and_pickled(configured):
    task = made()
    assert is_ours(copy.deepcopy(task))
    again = pickle.loads(pickle.dumps(copy.copy(AthenaOperator)))
    assert again is AthenaOperator
    cls, arguments, *_ = task.__reduce_ex__(4)
    assert is_ours(cls(*arguments))


def test_a_policy_of_the_deployment_applies_to_adopted_tasks(configured):
    configured(wait="reschedule", on_clear="reattach")
    task = made()
    assert (task.resume_policy.wait.value, task.resume_policy.on_clear.value) == ("reschedule", "reattach")


def test_a_wait_that_cannot_be_yields_for_an_adopted_task(configured):
    configured(wait="reschedule")
    assert made(deferrable=True).resume_policy.wait.value == "poll"


# -- what an adopted task does ----------------------------------------------------------------------------------------

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


def die_in_the_wait(instance):
    def listen(effect):
        if instance.data.get("resumable", {}).get("job") and effect != "store.set":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


@MODES
def test_a_retry_after_a_lost_worker_takes_up_the_run(configured, workspace, deferrable):
    instance = TaskInstance(lambda: made(deferrable=deferrable))
    die_in_the_wait(instance)
    (run,) = workspace.active()
    workspace.finish(run.run_id)
    instance.attempt()
    assert len(workspace.calls("runs/submit")) == 1


def test_an_adopted_tasks_job_is_reached_from_elsewhere(configured, workspace):
    instance = TaskInstance(made)
    die_in_the_wait(instance)
    assert instance.record["reach"]["operator"] == "resumable.operators.databricks:ResumableDatabricksSubmitRunOperator"


@MODES
def test_on_the_way_back_a_task_with_a_job_is_finished_as_ours(configured, workspace, deferrable):
    instance = TaskInstance(lambda: made(deferrable=deferrable))
    die_in_the_wait(instance)
    configured(adopt_new="false")
    (run,) = workspace.active()
    workspace.finish(run.run_id)
    instance.attempt()
    assert len(workspace.calls("runs/submit")) == 1


@MODES
def test_on_the_way_back_a_task_without_a_job_is_the_providers(configured, workspace, deferrable):
    configured(adopt_new="false")
    workspace.duration = 0
    instance = TaskInstance(lambda: made(deferrable=deferrable))
    instance.attempt()
    assert len(workspace.calls("runs/submit")) == 1
    assert "resumable" not in instance.data


def test_on_the_way_back_a_cleared_task_whose_job_has_ended_is_the_providers(configured, workspace):
    workspace.duration = 0
    instance = TaskInstance(made)
    instance.attempt()
    configured(adopt_new="false")
    before = dict(instance.record)
    instance.try_number += 1
    instance.clear()
    instance.attempt()
    assert len(workspace.calls("runs/submit")) == 2
    assert instance.record == before


def test_a_run_now_with_arguments_of_its_own_takes_up_its_run(configured, workspace):
    job = workspace.add_job("nightly")
    instance = TaskInstance(lambda: made(DatabricksRunNowOperator, job_id=job))
    die_in_the_wait(instance)
    (run,) = workspace.active()
    workspace.finish(run.run_id)
    instance.attempt()
    assert len(workspace.calls("run-now")) == 1


# -- plan -------------------------------------------------------------------------------------------------------------


def test_the_plan_says_task_by_task_what_would_become_of_it_and_changes_nothing(configured, tmp_path, capsys):
    (tmp_path / "one.py").write_text(
        many_dags.HEAD
        + """
with DAG("one", start_date=datetime(2026, 1, 1), schedule=None):
    DatabricksSubmitRunOperator(task_id="a", json={})
    Nightly(task_id="b", json={})
    AthenaOperator(task_id="c", query="q", database="d")
    EmrAddStepsOperator.partial(task_id="d", job_flow_id="j").expand(steps=[[]])
    number(1)
"""
    )
    assert main(["plan", str(tmp_path), "--adopt", "databricks, emr", "--json"]) == 0
    tasks = {one["task_id"]: (one["what"], one["why"]) for one in json.loads(capsys.readouterr().out)["tasks"]}
    assert {task_id: what for task_id, (what, _) in tasks.items()} == {
        "a": "adopted",
        "b": "cannot be adopted",
        "c": "stays",
        "d": "adopted",
    }
    assert "an execute of its own" in tasks["b"][1]
    assert "ResumableDatabricksSubmitRunOperator" in tasks["b"][1]


def test_a_file_that_cannot_be_parsed_is_told(configured, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("from airflow import DAG\n1 / 0\n")
    assert main(["plan", str(tmp_path)]) == 1
    assert "broken.py" in capsys.readouterr().err


def test_a_plan_for_nothing_is_refused(capsys):
    assert main(["plan", "/nowhere"]) == 1
    assert "Nothing is to be adopted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--adopt", "databrik"], "'databrik' is neither a service"),
        (["/nowhere/dags", "--adopt", "all"], "no folder or file /nowhere/dags"),
    ],
)
def test_a_plan_by_a_mistyped_name_is_refused_and_not_an_empty_answer(capsys, arguments, words):
    assert main(["plan", *arguments]) == 1
    assert words in capsys.readouterr().err

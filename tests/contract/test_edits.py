"""For every ready-made operator, in every way to wait: a change of the job is an edit of its author, and nothing else is."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
from typing import Any
from unittest import mock

import pytest

from resumable.host import context
from resumable.jobs.spec import edited_fields, is_of_the_job
from tests.contract.attempts import after, can_stop, die_in_the_wait, shape, undisturbed
from tests.contract.cases import CASES, Bench, Case
from tests.support.dag_file import in_file, new_path, text_of
from tests.support.names import AirflowRescheduleException, BaseOperator
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

COMPUTED = "job = make_job()  # from the environment, a helper module, YAML, the clock"
ELSEWHERE = f"{COMPUTED}\nother = Operator(task_id='other', size=17)"


def parsed_each_time(case: Case, bench: Bench, *texts: str, **more: Any) -> TaskInstance:
    """A task whose arguments are others at each parse, of a file with one text after the other."""
    arguments = iter([bench.arguments()] + [bench.other_arguments()] * 20)
    files = iter([*texts, *[texts[-1]] * 20])
    instance = TaskInstance(lambda: case.ours(task_id="task", **{**next(arguments), **case.extra, **more}))
    instance.text = lambda: next(files)
    return instance


@pytest.mark.parametrize("texts", [(COMPUTED,), (COMPUTED, ELSEWHERE)], ids=["same file", "unrelated edit"])
def test_a_job_whose_arguments_were_computed_anew_is_reattached_to(
    case: Case,
    bench: Bench,
    texts: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    instance = parsed_each_time(case, bench, *texts)
    die_in_the_wait(instance, bench)
    with caplog.at_level(logging.INFO):
        instance.attempt(listener=after("store.set", bench.finish))
    assert (bench.jobs(), bench.server.count(bench.submit), bench.cancels()) == (1, 1, 0)
    said = caplog.text + capsys.readouterr().out
    assert "moved: it is computed when the DAG file is parsed, which is no edit" in said


def test_a_job_that_succeeded_unseen_is_delivered_although_its_arguments_were_computed_anew(case: Case, bench: Bench) -> None:
    instance = parsed_each_time(case, bench, COMPUTED, ELSEWHERE)
    die_in_the_wait(instance, bench)
    bench.finish()
    result = instance.attempt()
    assert (bench.jobs(), bench.server.count(bench.submit)) == (1, 1)
    assert shape(result) == shape(undisturbed(case, bench)[0])


def test_a_task_that_looks_again_and_again_keeps_its_job_whatever_is_computed_anew(case: Case, bench: Bench) -> None:
    if case.deferrable:
        pytest.skip("two ways to give the slot back exclude each other")
    instance = parsed_each_time(case, bench, COMPUTED, ELSEWHERE, resume_policy={"wait": "reschedule", "wait_interval": 60})
    for _ in range(4):
        with pytest.raises(AirflowRescheduleException):
            instance.attempt()
        instance.try_number -= 1  # a reschedule uses up none
    bench.finish()
    instance.attempt()
    assert (bench.jobs(), bench.server.count(bench.submit), bench.cancels()) == (1, 1, 0)


def test_an_edit_restarts_the_job_once_whoever_has_an_older_file(case: Case, bench: Bench) -> None:
    """A rolling deploy: a worker with the file from before the edit starts the task after one that has the new file."""
    if not can_stop(bench):
        pytest.skip("nothing stops the job")
    instance = TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra}), retries=9)
    instance.is_all_written = True
    die_in_the_wait(instance, bench)
    stale = instance.make
    edited = lambda: case.ours(task_id="task", **{**bench.other_arguments(), **case.extra})
    for make in (edited, stale, edited, stale):
        instance.make = make
        die_in_a_look(instance, bench)
        assert (bench.jobs(), bench.active(), bench.cancels()) == (2, 1, 1)
    instance.make = edited
    instance.attempt(listener=after("store.set", bench.finish))
    assert (bench.jobs(), bench.cancels()) == (2, 1)


def die_in_a_look(instance: TaskInstance, bench: Bench) -> None:
    """Let an attempt die at the first look after it has taken up, or made, the second job."""
    before = instance.record["owner"]

    def on_effect(effect: str) -> None:
        record = instance.data["resumable"]
        is_there = bench.jobs() == 2 and record["owner"] != before and record["job"] is not None
        instance.effects.dead = is_there and effect.startswith(("http", "defer"))

    with pytest.raises(WorkerDied):
        instance.attempt(listener=on_effect)


def test_a_provider_that_has_gained_a_field_changes_no_job(case: Case, bench: Bench) -> None:
    """A rolling deploy of a newer provider: every task starts again under it, and its file is edited elsewhere meanwhile."""
    fields = getattr(case.ours, "spec_fields", None) or case.ours.template_fields
    at_default = [name for name in fields if name not in bench.arguments() and is_of_the_job(name)]
    if not at_default:
        pytest.skip("each field is given")
    attribute = "spec_fields" if hasattr(case.ours, "spec_fields") else "template_fields"
    make = lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra})
    for newer in (True, False):
        fewer = tuple(name for name in fields if name not in at_default)
        with mock.patch.object(case.ours, attribute, fewer):
            older = spec_of(make(), "# before")
        now = spec_of(make(), "# after")
        one, other = (older, now) if newer else (now, older)
        assert not edited_fields(one, other)


def spec_of(operator: Any, more: str = "") -> Any:
    """The spec of a task in a file that has all its arguments as constants, and ``more``."""
    path = new_path()
    in_file(operator, path, None)
    path.write_text(f"{more}\n{text_of(operator)}")
    spec = operator._resumable.spec({"ti": mock.Mock(dag_id="dag", run_id="run", task_id="task", map_index=-1)})
    assert spec.text, "the file was not read"
    return spec


EACH = pytest.mark.parametrize("operator", dict.fromkeys(case.ours for case in CASES), ids=lambda operator: operator.__name__)


@EACH
def test_an_edit_of_how_it_is_reached_waited_for_or_logged_is_no_change(operator: type[Any]) -> None:
    case = next(case for case in CASES if case.ours is operator)
    with pytest.MonkeyPatch.context() as environ, case.bench(environ) as bench:
        arguments = bench.arguments()
    defaults = context.defaults(operator)
    others = {name: other(default) for name, default in defaults.items() if not is_of_the_job(name)}
    others = {name: value for name, value in others.items() if value is not None and name not in KEPT}
    assert others
    one = spec_of(operator(task_id="task", **arguments))
    for name, value in others.items():
        edited = operator(task_id="task", **arguments)
        if name in getattr(edited, "_BaseOperator__init_kwargs", {}) or hasattr(edited, name):
            setattr(edited, name, value)
            edited._BaseOperator__init_kwargs[name] = value
            assert not edited_fields(one, spec_of(edited, f"{name} = {value!r}")), name


KEPT = ("durable", "resume_policy")


def other(default: Any) -> Any:
    """Another value of an argument whose default is known."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    return "another" if default is None or isinstance(default, str) else None


@EACH
def test_every_edit_of_what_a_test_submits_is_seen_and_named(operator: type[Any]) -> None:
    case = next(case for case in CASES if case.ours is operator)
    with pytest.MonkeyPatch.context() as environ, case.bench(environ) as bench:
        arguments, others = bench.arguments(), bench.other_arguments()
    named = edited_fields(*(spec_of(operator(task_id="task", **given)) for given in (arguments, others)))
    differ = {name for name in others if arguments.get(name) != others[name]}
    assert named
    assert {name.split(".")[0] for name in named} <= differ | set(operator.template_fields)


OF_NO_JOB = (
    *("secret_arn", "with_event", "client_request_token", "region"),
    *("openlineage_inject_*", "include_airflow_query_tags", "databricks_task_key"),
)
"""How a job is reached, who else is told of it, and what it is known by."""


@EACH
def test_an_edit_of_an_argument_that_goes_into_the_request_is_seen_also_where_it_is_no_template(operator: type[Any]) -> None:
    case = next(case for case in CASES if case.ours is operator)
    with pytest.MonkeyPatch.context() as environ, case.bench(environ) as bench:
        arguments = bench.arguments()
    defaults = {name: value for name, value in context.defaults(operator).items() if name not in context.defaults(BaseOperator)}
    written, sent = spec_of(operator(task_id="task", **arguments)), requests_of(case)
    for name, value in {**defaults, **arguments}.items():
        if not is_of_the_job(name) or name in KEPT or any(fnmatch.fnmatch(name, other) for other in OF_NO_JOB):
            continue
        for edited in others_than(value):
            try:
                spec = spec_of(operator(task_id="task", **{**arguments, name: edited}))
            except Exception:  # no value that it can have
                continue
            if not edited_fields(written, spec):
                assert requests_of(case, **{name: edited}) in ([], sent), f"{name}={edited!r}"


def others_than(value: Any) -> list[Any]:
    """Other values of an argument; of None, one of each kind."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1]
        case str():
            return [f"{value}x"]
        case dict():
            return [{**value, "another": "x"}]
        case list():
            return [[*value, "another"]]
    return ["another", {"another": "x"}, ["another"], 1000, True]


def requests_of(case: Case, **more: Any) -> list[Any]:
    """The submits of one task instance at a service of its own, where jobs end at once."""
    with pytest.MonkeyPatch.context() as environ, case.bench(environ) as bench:
        bench.at_once()
        instance = TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **more}))
        with contextlib.suppress(Exception):
            instance.attempt()
        return [call.body for call in bench.server.calls(bench.submit)]


@EACH
def test_a_task_that_is_not_durable_reads_no_dag_file(operator: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.ours is operator)
    with pytest.MonkeyPatch.context() as environ, case.bench(environ) as bench:
        plain = operator(task_id="task", durable=False, **bench.arguments())
    monkeypatch.setattr(operator._resumable.service, "spec_values", lambda _: pytest.fail("asked for the spec"))
    monkeypatch.setattr("resumable.host.context.dag_text", lambda _: pytest.fail("read the file"))
    monkeypatch.setattr(operator, "template_fields", ())
    plain._do_render_template_fields(plain, (), {}, None, set())

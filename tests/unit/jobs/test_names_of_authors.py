"""An operator has one private attribute of ours, ``_resumable``: every other name, but the documented ones, is its author's."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import resumable
from resumable import ResumableMixin, operators
from resumable.jobs.operator import ATTRIBUTE, is_durable_class
from tests.support.names import BaseOperator
from tests.support.runner import TaskInstance, WorkerDied

STARTED_AGAIN_IN_TIME = frozenset({"reschedule", "_is_sensor", "deps", "get_serialized_fields"})
"""Where the scheduler has to be told that it is to heed the date of a reschedule: Airflow 2.11 and 3.0."""

DOCUMENTED = frozenset(
    {
        "durable",
        "resume_policy",
        "spec_fields",
        "reach_fields",
        "service",
        "settle_time",
        "submit_is_idempotent",
        "idempotency_token",
        "execute_resumable",
        "submit_job",
        "get_job_status",
        "is_job_active",
        "is_job_succeeded",
        "poll_until_complete",
        "get_job_result",
        "cancel_job",
        "find_job",
        "is_job_failed",
        "is_rejection",
        "is_wait_trouble",
    }
)
"""The names on `ResumableMixin` that mean something to it, each described in its docstrings or in docs/custom-operators.md."""

OF_AIRFLOW = frozenset({"defer", "partial", "resume_execution", "_do_render_template_fields"})
"""Methods of Airflow's own."""


ENTRY_POINTS = {"__init__", "__init_subclass__", "partial", "execute", "defer", "resume_execution", "_do_render_template_fields"}
"""What Airflow calls, and comes to us by; and the warning to the author of a subclass."""


def own_names(cls):
    return {name for name in vars(cls) if not name.startswith(("__", "_abc_")) and name != "_is_protocol"}


def test_every_public_name_of_a_custom_operator_is_a_documented_one():
    public = {name for name in own_names(ResumableMixin) if not name.startswith("_")}
    assert (public - OF_AIRFLOW - STARTED_AGAIN_IN_TIME) | {"durable", "resume_policy"} == DOCUMENTED


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_a_documented_name_is_in_the_documentation(name):
    root = Path(resumable.__file__).parents[1]
    texts = [root / "docs" / "custom-operators.md", root / "README.md", root / "resumable" / "jobs" / "mixin.py"]
    assert any(name in text.read_text() for text in texts)


def test_a_custom_operator_has_one_private_name_of_ours():
    private = {name for name in own_names(ResumableMixin) if name.startswith("_")}
    assert private - OF_AIRFLOW - STARTED_AGAIN_IN_TIME == {ATTRIBUTE}


def ready_made():
    """The ready-made operators with the provider's class of each."""
    for module in pkgutil.iter_modules(operators.__path__):
        for cls in vars(importlib.import_module(f"{operators.__name__}.{module.name}")).values():
            if is_durable_class(cls):
                yield cls, cls.__bases__[0]


READY_MADE = dict(ready_made())


@pytest.mark.parametrize("operator", READY_MADE, ids=lambda operator: operator.__name__)
def test_a_ready_made_operator_has_one_name_more_than_the_providers(operator):
    more = set(dir(operator)) - set(dir(READY_MADE[operator]))
    assert more - STARTED_AGAIN_IN_TIME - {"spec_fields"} == {ATTRIBUTE}


@pytest.mark.parametrize("operator", READY_MADE, ids=lambda operator: operator.__name__)
def test_a_ready_made_operator_overrides_what_airflow_calls_and_nothing_else(operator):
    of_python = {"__module__", "__doc__", "__abstractmethods__", "__parameters__", "__orig_bases__", "__annotations__"}
    ours = {name for name in vars(operator) if not name.startswith("_BaseOperator__")}  # Airflow keeps what it computed there
    assert ours - of_python - {"_abc_impl"} - STARTED_AGAIN_IN_TIME - {"spec_fields"} == ENTRY_POINTS | {ATTRIBUTE}
    (theirs,) = operator.__bases__
    assert theirs.__module__.startswith("airflow.providers.")


def test_all_ready_made_operators_are_looked_at():
    assert len(READY_MADE) > 35


class Train(ResumableMixin, BaseOperator):
    polls = 0

    def execute(self, context):
        return self.execute_resumable(context)

    def submit_job(self, context):
        return [self.idempotency_token]

    def get_job_status(self, external_id, context):
        return "DONE" if type(self).polls else "RUNNING"

    def is_job_active(self, status):
        return status == "RUNNING"

    def is_job_succeeded(self, status):
        return status == "DONE"

    def poll_until_complete(self, external_id, context):
        type(self).polls += 1

    def get_job_result(self, external_id, context):
        return 42

    def cancel_job(self, external_id, context):
        """Nothing to stop."""


def test_an_attempt_leaves_nothing_on_the_operator_but_the_one_attribute():
    kept = []
    instance = TaskInstance(lambda: kept.append(type("Own", (Train,), {"polls": 0})(task_id="task")) or kept[-1])
    other = BaseOperator(task_id="other")
    other.log.debug("makes the logger, which is kept")
    theirs = set(vars(other))
    assert instance.attempt() == 42
    ours = set(vars(kept[-1])) - theirs
    assert ours <= {"durable", "resume_policy", "on_kill", ATTRIBUTE}


COMMON = re.findall(
    r"\w+",
    """
_context _spec _attempt _records _count _reach _failed _token _repeat _begin _waits _stop_job _leave
_succeeded _written _interruption _is_over _is_at_work _certainty _log _hook _client _job _job_id _handle
_state _status _result _results _record _store _policy _service _adapter _plan _durable _is_durable _timeout
_deadline _started _submitter _looker _unseen _flushing _run_attempt attempt record token context state status
job job_id handle adapter policy store client spec params_ cancel find observe submit wait waits recovery
settle place seam trigger
    """,
)


def with_names(names, value):
    class Own(Train):
        polls = 0

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            for name in names:
                setattr(self, name, value)

        def execute(self, context):
            for name in names:
                setattr(self, name, value)
            result = super().execute(context)
            assert all(getattr(self, name) == value for name in names)
            return result

    return Own


@pytest.mark.parametrize("name", COMMON)
def test_an_author_may_use_the_name(name):
    own = with_names([name], {"mine": 1})
    assert TaskInstance(lambda: own(task_id="task")).attempt() == 42


def test_an_author_may_use_all_of_them_at_once_also_over_a_crash():
    own = with_names(COMMON, "mine")
    instance = TaskInstance(lambda: own(task_id="task"))

    def die(call):
        if instance.data.get("resumable", {}).get("job") and not own.polls:
            raise WorkerDied(call)

    with pytest.raises(WorkerDied):
        instance.attempt(listener=die)
    assert instance.attempt() == 42


def test_methods_of_an_author_with_such_names_are_never_called_by_us():
    def never(self, *args, **kwargs):
        raise AssertionError("this is the author's")

    methods = {name: never for name in COMMON if name not in ("_context", "_log", "_hook")}
    own = type("Own", (Train,), {**methods, "polls": 0})
    assert TaskInstance(lambda: own(task_id="task")).attempt() == 42

"""airflow.cfg: read once, heeded at once when it changes, and never a reason for a DAG not to be parsed."""

from __future__ import annotations

import logging
import os
import re

import pytest

from resumable import ConfigurationError, ResumableMixin, adoption, host, make_resumable
from resumable.adapters import HookCall, durable_operator
from resumable.cli import doctor
from resumable.fleet.budget import SHARE
from resumable.fleet.poller import Settings
from resumable.host import config, stores
from resumable.operators.athena import ResumableAthenaOperator
from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrCreateJobFlowOperator
from resumable.policy import SETTINGS
from resumable.provider_info import get_provider_info
from tests.support.names import BaseOperator

ATHENA = {"task_id": "task", "query": "q", "database": "d", "output_location": "s3://x"}


class SixMethods:
    def nothing(self, *args):
        """What is not under test."""

    submit_job = get_job_status = is_job_active = is_job_succeeded = poll_until_complete = get_job_result = nothing

    def execute(self, context):
        return self.execute_resumable(context)


class Custom(SixMethods, ResumableMixin, BaseOperator):
    pass


class Submit(HookCall):
    service = "x"
    submit_method = "submit"
    recovery = None
    stamp = observe = cancel = None


@durable_operator(Submit)
class NoWaitArgument(BaseOperator):
    def execute(self, context):
        """Somebody's."""


class Deferrable(SixMethods, BaseOperator):
    """Somebody else's, deferrable where ``[operators] default_deferrable`` says so."""

    def __init__(self, *, deferrable=True, **kwargs):
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def execute_resumable(self, context):
        """Airflow's own."""


Made = make_resumable(Deferrable)

EVERY = {
    "Databricks": lambda **given: ResumableDatabricksOperator(task_id="task", json={}, **given),
    "Athena": lambda **given: ResumableAthenaOperator(**ATHENA, **given),
    "Athena, deferrable": lambda **given: ResumableAthenaOperator(**ATHENA, deferrable=True, **given),
    "EMR cluster": lambda **given: ResumableEmrCreateJobFlowOperator(task_id="task", **given),
    "custom": lambda **given: Custom(task_id="task", **given),
    "made": lambda **given: Made(task_id="task", **given),
    "no wait argument": lambda **given: NoWaitArgument(task_id="task", **given),
    "an interval of its own": lambda **given: Custom(task_id="task", resume_policy={"wait_interval": 5}, **given),
    "a wait of its own": lambda **given: Custom(task_id="task", resume_policy={"wait": "reschedule"}, **given),
    "a wait and an interval": lambda **given: Custom(
        task_id="task", resume_policy={"wait": "reschedule", "wait_interval": 60}, **given
    ),
}
each = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())


@pytest.fixture
def says(caplog):
    config._settings._known.clear()
    caplog.set_level(logging.WARNING)
    return lambda: [line for line in caplog.messages if "airflow.cfg" in line]


OPTIONS = [
    *((name, wrong) for name in SETTINGS for wrong in ("nonsense", "-1", "None")),
    ("wait", "reschedule"),
    ("wait", "defer"),
    ("wait_interval", "5"),
    ("job_timeout", "0"),
    ("job_timeout", "1 day"),
    ("job_timeout", "3600"),
    ("strict", "true"),
    ("hand_back_seconds", "a minute"),
    ("hand_back_seconds", "nan"),
    ("hand_back_seconds", "inf"),
    ("hand_back_seconds", "600"),
    ("hand_back_seconds", "0"),
]


@each
@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_no_default_in_airflow_cfg_keeps_a_dag_from_being_parsed(monkeypatch, make, option, value):
    make()
    monkeypatch.setenv(f"AIRFLOW__RESUMABLE__{option.upper()}", value)
    make()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__WAIT", "reschedule")
    make()


@each
def test_a_wait_from_airflow_cfg_is_followed_where_it_can_be(monkeypatch, says, make):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__WAIT", "reschedule")
    operators = [make() for _ in range(3)]
    followed = all(one.resume_policy.wait.value == "reschedule" for one in operators)
    lines = says()
    assert len(lines) == (0 if followed else 1), lines
    if not followed:
        assert re.search(
            rf"wait=reschedule is not followed by {type(operators[0]).__name__}, which waits as it does without", lines[0]
        )
    assert followed is (make in (EVERY[name] for name in FOLLOWS))


FOLLOWS = ["Databricks", "Athena", "EMR cluster", "custom", "made", "a wait of its own", "a wait and an interval"]


def test_what_the_author_asks_for_and_cannot_be_is_an_error_as_ever(monkeypatch):
    for given in ({"wait": "reschedule", "wait_interval": 5}, {"wait": "never"}, {"job_timeout": "soon"}, {"strict": 3}):
        with pytest.raises(ConfigurationError):
            Custom(task_id="task", resume_policy=given)
    with pytest.raises(ConfigurationError, match="Choose one"):
        ResumableAthenaOperator(**ATHENA, deferrable=True, resume_policy={"wait": "reschedule"})
    with pytest.raises(ConfigurationError, match="Choose one"):
        ResumableAthenaOperator(**ATHENA, default_args={"deferrable": True}, resume_policy={"wait": "reschedule"})
    with pytest.raises(ConfigurationError, match="make_resumable cannot make durable"):
        Made(task_id="task", deferrable=True)
    assert Made(task_id="task", deferrable=True, durable=False).deferrable is True
    assert Made(task_id="task", durable=False).deferrable is True
    monkeypatch.setenv("AIRFLOW__RESUMABLE__HAND_BACK_SECONDS", "600")
    with pytest.raises(ConfigurationError, match="wait_interval=5 is less than 60"):
        Custom(task_id="task", resume_policy={"wait": "reschedule", "wait_interval": 5})


def test_a_wait_that_the_author_asks_for_goes_before_deferrable_from_airflow_cfg():
    """The provider's default of ``deferrable`` is ``[operators] default_deferrable``; that of this class is True."""

    class Provider(BaseOperator):
        def __init__(self, *, deferrable=True, **kwargs):
            super().__init__(**kwargs)
            self.deferrable = deferrable

    class Ours(SixMethods, ResumableMixin, Provider):
        pass

    operator = Ours(task_id="task", resume_policy={"wait": "reschedule"})
    assert (operator.deferrable, operator.resume_policy.wait.value) == (False, "reschedule")
    assert Ours(task_id="task").deferrable is True
    made = Made(task_id="task", resume_policy={"wait": "reschedule"})
    assert (made.deferrable, made.resume_policy.wait.value) == (False, "reschedule")


def test_a_change_of_the_environment_is_heeded_at_once(monkeypatch):
    for value in ("reattach", "restart", "reattach"):
        monkeypatch.setenv("AIRFLOW__RESUMABLE__ON_CLEAR", value)
        assert Custom(task_id="task").resume_policy.on_clear == value
    monkeypatch.delenv("AIRFLOW__RESUMABLE__ON_CLEAR")
    assert Custom(task_id="task").resume_policy.on_clear == "restart"
    os.environ["AIRFLOW__RESUMABLE__ON_CLEAR"] = "reattach"
    try:
        assert Custom(task_id="task").resume_policy.on_clear == "reattach"
    finally:
        del os.environ["AIRFLOW__RESUMABLE__ON_CLEAR"]
    assert Custom(task_id="task").resume_policy.on_clear == "restart"


def test_a_change_of_airflows_configuration_is_heeded_at_once():
    """As Airflow's own ``conf_vars`` in tests makes it."""
    conf = config.configuration().conf
    had_section = conf.has_section("resumable")
    if not had_section:
        conf.add_section("resumable")
    try:
        conf.set("resumable", "on_clear", "reattach")
        assert Custom(task_id="task").resume_policy.on_clear == "reattach"
        conf.set("resumable", "on_clear", "restart")
        assert Custom(task_id="task").resume_policy.on_clear == "restart"
    finally:
        conf.remove_option("resumable", "on_clear")
        if not had_section:
            conf.remove_section("resumable")
    assert Custom(task_id="task").resume_policy.on_clear == "restart"


def test_another_configuration_is_heeded_at_once(monkeypatch):
    class Conf:
        def get(self, section, key, fallback=None):
            return "reattach" if key == "on_clear" else fallback

    module = config.configuration()
    _ = module.conf
    monkeypatch.setattr(module, "conf", Conf())
    assert Custom(task_id="task").resume_policy.on_clear == "reattach"
    monkeypatch.undo()
    assert Custom(task_id="task").resume_policy.on_clear == "restart"


def test_an_option_that_nobody_has_asked_for_before_is_heeded_too(monkeypatch):
    assert host.setting("of_a_later_release") is None
    monkeypatch.setenv("AIRFLOW__RESUMABLE__OF_A_LATER_RELEASE", "x")
    assert host.setting("of_a_later_release") == "x"


def test_constructing_tasks_asks_the_configuration_no_more_often_than_one(monkeypatch):
    asked, module = [], config.configuration()

    class Conf(type(module.conf)):
        def get(self, section, key, **kwargs):
            if section == "resumable":
                asked.append(key)
            return super().get(section, key, **kwargs)

    monkeypatch.setattr(module.conf, "__class__", Conf)
    config._settings._known.clear()
    ResumableAthenaOperator(**ATHENA)
    assert asked
    once = len(asked)
    for number in range(20):
        ResumableAthenaOperator(**{**ATHENA, "task_id": f"t{number}"})
        Custom(task_id=f"t{number}", resume_policy={"wait": "reschedule"})
    assert len(asked) <= once + 1  # hand_back_seconds, for the first that waits by being rescheduled


def test_a_store_that_cannot_be_used_is_an_error_of_every_task_and_not_of_the_first_alone(monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", "no.such.Store")
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="cannot be imported"):
            Custom(task_id="task")


WORDS = {
    **dict.fromkeys(("true", "True", "t", "yes", "y", "on", "1", " ON ", "true # for now"), True),
    **dict.fromkeys(("false", "FALSE", "f", "no", "n", "off", "0", " Off ", "false # for now"), False),
}


@pytest.mark.parametrize(("word", "means"), WORDS.items())
def test_a_word_for_true_or_false_means_the_same_in_every_option(monkeypatch, says, word, means):
    for name in ("strict", "adopt_new", "look_for_variables"):
        monkeypatch.setenv(f"AIRFLOW__RESUMABLE__{name.upper()}", word)
    assert Custom(task_id="task").resume_policy.strict is means
    assert (adoption.takes_new(), stores._may_be_upgraded()) == (means, means)
    assert list(doctor._settings_not_followed()) == []
    assert says() == []


NONE_SUCH = [
    ("adopt_new", "maybe", "is not true or false; it is taken for true"),
    ("look_for_variables", "never", "is not true or false; it is taken for true"),
    ("hand_back_seconds", "a minute", "is not a number of seconds; it is taken for 60"),
    ("sweep_delay", "-3", "is not a number of seconds; it is taken for 15"),
    ("lost_sight_after", "0", "is not a number of seconds above 0; it is taken for 21600"),
    ("fleet_share", "2", "is not a number above 0, and at most 1; it is taken for 0.4"),
    ("fleet_threads", "many", "is not a number from 1 to 1000; it is taken for 8"),
]


@pytest.mark.parametrize(("name", "value", "said"), NONE_SUCH)
def test_a_value_that_means_nothing_is_told_of_once_and_found_by_the_doctor(monkeypatch, says, name, value, said):
    monkeypatch.setenv(f"AIRFLOW__RESUMABLE__{name.upper()}", value)
    read = host.flag if name in ("adopt_new", "look_for_variables") else host.number
    for _ in range(3):
        read(name)
    (line,) = says()
    assert f"{name}={value!r} {said}" in line
    (finding,) = doctor._settings_not_followed()
    assert finding.level == "trouble"
    assert f"{name} = {value!r}" in finding.what


def test_the_defaults_are_those_that_airflow_is_told(monkeypatch):
    options = get_provider_info()["config"]["resumable"]["options"]
    assert {name: host.number(name) for name in config._NUMBERS} == {
        name: float(options[name]["default"]) for name in config._NUMBERS
    }
    assert {name: host.flag(name) for name in config._FLAGS} == {
        name: options[name]["default"] == "true" for name in config._FLAGS
    }
    assert (SHARE, Settings().at_once, Settings().lost_after) == tuple(
        host.number(name) for name in ("fleet_share", "fleet_threads", "lost_sight_after")
    )

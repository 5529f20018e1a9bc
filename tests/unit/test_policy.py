"""A policy takes enums and strings, fills itself from airflow.cfg, and says what it would have taken."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.errors import ConfigurationError
from resumable.policy import (
    SETTINGS,
    OnChange,
    OnClear,
    OnFailed,
    OnFinalFailure,
    OnMissing,
    OnTimeout,
    ResumePolicy,
    Wait,
    options,
)

ENUMS = {
    "on_failed": OnFailed,
    "on_missing": OnMissing,
    "on_change": OnChange,
    "on_clear": OnClear,
    "on_timeout": OnTimeout,
    "on_final_failure": OnFinalFailure,
    "wait": Wait,
}
DEFAULTS = {
    "on_failed": "resubmit",
    "on_missing": "resubmit",
    "on_change": "restart",
    "on_clear": "restart",
    "on_timeout": "cancel",
    "on_final_failure": "leave",
    "wait": "poll",
}
SECONDS = {"wait_interval": 60.0, "job_timeout": None}
MEMBERS = [(setting, member) for setting, enum in ENUMS.items() for member in enum]


def test_the_settings_are_those_of_the_design():
    assert set(SETTINGS) == set(ENUMS) | set(SECONDS) | {"strict"}
    assert set(ENUMS) == set(DEFAULTS)


@pytest.mark.parametrize("setting", ENUMS)
def test_the_default_is_the_first_value_that_the_design_names(setting):
    assert getattr(ResumePolicy().resolved(), setting) is ENUMS[setting](DEFAULTS[setting])


@pytest.mark.parametrize(("setting", "member"), MEMBERS)
def test_an_enum_and_its_string_mean_the_same(setting, member):
    assert getattr(ResumePolicy(**{setting: member}), setting) is member
    assert getattr(ResumePolicy(**{setting: member.value}), setting) is member


@pytest.mark.parametrize(("setting", "member"), MEMBERS)
@pytest.mark.parametrize("write", [str.upper, str.title, " {} ".format], ids=["upper", "title", "spaces"])
def test_airflow_cfg_may_write_a_value_in_any_case_and_with_spaces(setting, member, write):
    assert getattr(ResumePolicy().resolved({setting: write(member.value)}), setting) is member


@pytest.mark.parametrize("nothing", [{}, None, {"on_clear": None}, {"on_clear": ""}])
def test_what_airflow_cfg_leaves_out_comes_from_the_defaults(nothing):
    assert ResumePolicy().resolved(nothing) == ResumePolicy().resolved()


def test_the_operators_own_value_goes_before_airflow_cfg():
    assert ResumePolicy(on_clear="reattach").resolved({"on_clear": "restart"}).on_clear is OnClear.REATTACH


def test_a_wrong_value_in_airflow_cfg_is_no_error_where_the_operator_has_its_own():
    assert ResumePolicy(on_clear="reattach").resolved({"on_clear": "nonsense"}).on_clear is OnClear.REATTACH


@pytest.mark.parametrize("setting", ENUMS)
@pytest.mark.parametrize("wrong", ["never", "", "RESTART!", 0, 1, True, [], {}, object])
def test_a_wrong_value_is_refused_with_the_right_ones(setting, wrong):
    with pytest.raises(ConfigurationError) as caught:
        ResumePolicy(**{setting: wrong})
    text = str(caught.value)
    assert f"{setting}={wrong!r}" in text
    assert "Nothing was submitted" in text
    assert all(repr(member.value) in text for member in ENUMS[setting])


@pytest.mark.parametrize(
    ("setting", "wrong"), [("on_clear", "resume"), ("wait", "sleep"), ("job_timeout", "24h"), ("strict", "2")]
)
def test_a_wrong_value_in_airflow_cfg_yields_with_a_line_that_names_the_place_and_the_right_ones(setting, wrong, caplog):
    assert ResumePolicy().resolved({setting: wrong}) == ResumePolicy().resolved()
    (line,) = caplog.messages
    assert re.search(rf"airflow\.cfg \[resumable\]: {setting}='{wrong}'.*The default is taken", line)


def test_a_wrong_value_is_a_value_error_that_no_other_try_mends():
    with pytest.raises(ValueError, match="on_clear") as caught:
        ResumePolicy(on_clear="x")
    assert not caught.value.retryable


@pytest.mark.parametrize("setting", SECONDS)
def test_a_time_left_out_has_its_default(setting):
    assert getattr(ResumePolicy().resolved(), setting) == SECONDS[setting]


@pytest.mark.parametrize("setting", SECONDS)
@pytest.mark.parametrize("given", [90, 90.0, timedelta(minutes=1.5)])
def test_a_time_may_be_seconds_or_a_timedelta(setting, given):
    assert getattr(ResumePolicy(**{setting: given}), setting) == 90.0


@pytest.mark.parametrize("setting", SECONDS)
def test_a_time_may_come_from_airflow_cfg(setting):
    assert getattr(ResumePolicy().resolved({setting: " 90 "}), setting) == 90.0
    assert getattr(ResumePolicy(**{setting: 5}).resolved({setting: "90"}), setting) == 5.0


@pytest.mark.parametrize("setting", SECONDS)
@pytest.mark.parametrize(
    "wrong", [0, -1, True, False, "soon", "", [], timedelta(0), float("nan"), object, 10**400], ids=lambda one: str(one)[:20]
)
def test_a_wrong_time_is_refused_with_what_is_right(setting, wrong):
    with pytest.raises(ConfigurationError) as caught:
        ResumePolicy(**{setting: wrong})
    text = str(caught.value)
    assert f"{setting}={wrong!r}" in text
    assert "Nothing was submitted" in text
    assert "seconds" in text


def test_an_argument_may_be_a_policy_a_mapping_or_nothing():
    assert ResumePolicy.of(None) == ResumePolicy()
    assert ResumePolicy.of(ResumePolicy(on_clear="reattach")) == ResumePolicy(on_clear="reattach")
    assert ResumePolicy.of({"on_clear": "reattach"}) == ResumePolicy(on_clear=OnClear.REATTACH)


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigurationError, match="on_cleared") as caught:
        ResumePolicy.of({"on_cleared": "restart"})
    assert all(setting in str(caught.value) for setting in SETTINGS)
    assert "Nothing was submitted" in str(caught.value)


@pytest.mark.parametrize("wrong", ["reattach", 5, [], ["on_clear"], True])
def test_an_argument_of_another_type_is_refused_with_an_example(wrong):
    with pytest.raises(ConfigurationError, match=r"Nothing was submitted.*ResumePolicy\(on_clear='reattach'\)"):
        ResumePolicy.of(wrong)


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={s: st.sampled_from(list(e)) for s, e in ENUMS.items()}))
def test_resolving_fills_every_setting_keeps_the_given_ones_and_settles(given_settings):
    policy = ResumePolicy(**given_settings).resolved()
    assert all(isinstance(getattr(policy, setting), ENUMS[setting]) for setting in ENUMS)
    assert all(getattr(policy, setting) is member for setting, member in given_settings.items())
    assert policy.resolved() == policy
    assert ResumePolicy.of({s: getattr(policy, s).value for s in ENUMS}).resolved() == policy


def test_airflow_cfg_is_told_each_setting_its_values_and_its_default():
    told = {name: (text, default) for name, text, default in options()}
    assert {name: default for name, (_, default) in told.items()} == DEFAULTS | {
        "wait_interval": "60",
        "job_timeout": "",
        "strict": "False",
    }
    for setting, enum in ENUMS.items():
        assert all(member.value in told[setting][0] for member in enum)


# -- strict ------------------------------------------------------------------------------------------------------------


def test_strict_is_off_unless_given():
    assert ResumePolicy().resolved().strict is False


@pytest.mark.parametrize(("given", "meant"), [("True", True), ("yes", True), ("false", False), ("0", False)])
def test_strict_may_be_configured(given, meant):
    assert ResumePolicy().resolved({"strict": given}).strict is meant
    assert ResumePolicy(strict=not meant).resolved({"strict": given}).strict is not meant


@pytest.mark.parametrize("wrong", [1, "perhaps", 0.5, []])
def test_a_strict_that_is_no_bool_is_an_error(wrong):
    with pytest.raises(ConfigurationError, match="strict=.*neither True nor False"):
        ResumePolicy(strict=wrong)

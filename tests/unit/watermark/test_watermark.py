"""What a run reads, and when the mark moves."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from resumable import ConfigurationError, RecordError, StateStoreError, Watermark, host
from resumable.errors import SupersededError
from resumable.identity import TaskIdentity
from resumable.stores.task_state import AssetStateStore
from resumable.stores.task_variables import TaskVariableStore
from resumable.watermark.intervals import Interval, Mark, Proposal, give, reached, repeat
from resumable.watermark.values import ValueType
from tests.support.incremental import ASSET, DAY, Accessor, Deployment
from tests.support.names import AirflowFailException
from tests.support.refusals import answer_of_server
from tests.support.watermarked import HOUR, KEY, Named, airflow, clock, opened, work  # noqa: F401

# ruff: noqa: F811 - fixtures are arguments

pytestmark = pytest.mark.usefixtures("no_waiting")

MICROSECOND = timedelta(microseconds=1)


# -- which interval ---------------------------------------------------------------------------------------------------


def test_the_first_run_begins_at_start_and_each_next_where_the_last_successful_one_ended(airflow: Deployment) -> None:
    assert work(airflow, "a", until=10) == (0, 10)
    assert work(airflow, "b", until=25) == (10, 25)
    assert work(airflow, "c", until=25) == (25, 25)
    assert work(airflow, "d", until=30) == (25, 30)


@pytest.mark.parametrize("state", ["failed", "up_for_retry", "running", "skipped", "upstream_failed"])
def test_the_mark_does_not_move_unless_the_task_succeeded_even_when_its_work_was_done(airflow: Deployment, state: str) -> None:
    work(airflow, "a", until=10)
    work(airflow, "b", until=20, state=state)
    assert work(airflow, "c", until=30) == (10, 30)


def test_a_run_that_was_deleted_did_not_succeed(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    del airflow.runs["a"]
    assert work(airflow, "b", until=20) == (0, 20)


def test_a_block_that_raises_proposes_nothing(airflow: Deployment) -> None:
    run = airflow.run("a")
    with pytest.raises(ZeroDivisionError), opened(airflow, run, until=10) as mark:
        mark.advance()
        1 / 0
    run.state = "success"  # someone marks it
    assert work(airflow, "b", until=20) == (0, 20)


def test_a_block_without_advance_leaves_the_mark_and_says_so(airflow: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with opened(airflow, airflow.run("a"), until=10):
        pass
    airflow.run("a").state = "success"
    assert "stays at 0: the block ended without advance()" in caplog.text
    assert work(airflow, "b", until=20) == (0, 20)


def test_a_gap_left_by_a_failed_run_is_read_by_the_next_one_whoever_succeeded_between(airflow: Deployment) -> None:
    airflow.run("failing")
    with pytest.raises(ZeroDivisionError), opened(airflow, airflow.run("failing"), until=10):
        1 / 0
    airflow.run("failing").state = "failed"
    assert work(airflow, "b", until=20) == (0, 20)
    assert work(airflow, "c", until=30) == (20, 30)


def test_a_retry_reads_the_same_interval_whatever_until_says_by_then(airflow: Deployment) -> None:
    run = airflow.run("a")
    with pytest.raises(ZeroDivisionError), opened(airflow, run, until=10):
        1 / 0
    run.retry()
    with opened(airflow, run, until=99) as mark:
        assert (mark.since, mark.until, mark.is_repeat) == (0, 10, True)


def test_until_is_asked_for_once_in_a_run(airflow: Deployment) -> None:
    asked = []
    run = airflow.run("a")
    for _ in range(3):
        with opened(airflow, run, until=lambda: asked.append(1) or 10) as mark:
            assert mark.until == 10
        run.retry()
    assert asked == [1]


def test_a_retry_after_the_proposal_repeats_what_was_proposed(airflow: Deployment) -> None:
    """The worker dies between the end of the block and the success that Airflow would have noted."""
    run = airflow.run("a")
    with opened(airflow, run) as mark:
        assert mark.until is None
        mark.advance(7)
    run.retry()
    with opened(airflow, run) as mark:
        assert (mark.since, mark.until) == (0, 7)
        mark.advance(12)  # rows that came meanwhile and that the query did not cut off
    run.state = "success"
    assert work(airflow, "b", to=9)[0] == 7


def test_a_cleared_run_reads_its_own_interval_and_moves_nothing(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    work(airflow, "b", until=20)
    work(airflow, "c", until=30)
    before = airflow.record
    airflow.run("a").clear()
    assert work(airflow, "a", until=99) == (0, 10)
    assert airflow.record == before
    assert work(airflow, "d", until=40) == (30, 40)


def test_a_cleared_run_finds_its_interval_also_when_airflow_has_cleared_its_task_state(airflow: Deployment) -> None:
    """[state_store] clear_on_success, or the retention of task state."""
    for number in range(5):
        work(airflow, f"r{number}", until=10 * (number + 1))
    airflow.run("r1").data.clear()
    airflow.run("r1").clear()
    assert work(airflow, "r1", until=99) == (10, 20)
    assert work(airflow, "next", until=99) == (50, 99)


def test_a_failed_run_that_is_cleared_before_others_went_on_moves_the_mark(airflow: Deployment) -> None:
    run = airflow.run("a")
    with pytest.raises(ZeroDivisionError), opened(airflow, run, until=10):
        1 / 0
    run.clear()
    assert work(airflow, "a", until=99) == (0, 10)
    assert work(airflow, "b", until=20) == (10, 20)


def test_a_failed_run_that_is_cleared_after_others_went_on_moves_nothing(airflow: Deployment) -> None:
    run = airflow.run("a")
    with pytest.raises(ZeroDivisionError), opened(airflow, run, until=10):
        1 / 0
    run.state = "failed"
    work(airflow, "b", until=20)
    work(airflow, "c", until=30)
    run.clear()
    assert work(airflow, "a", until=99) == (0, 10)
    assert work(airflow, "d", until=40) == (30, 40)


def test_an_open_interval_that_others_went_past_ends_at_the_mark(airflow: Deployment) -> None:
    run = airflow.run("a")
    with pytest.raises(ZeroDivisionError), opened(airflow, run):
        1 / 0
    work(airflow, "b", to=20)
    work(airflow, "c", to=30)
    run.clear()
    with opened(airflow, run) as mark:
        assert (mark.since, mark.until) == (0, 20)


def test_a_cleared_run_does_not_commit_what_others_earned(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    work(airflow, "b", until=20)
    airflow.run("a").clear()
    work(airflow, "a")
    assert airflow.record["mark"] == 10


def test_a_mark_is_committed_for_good_once_a_run_began_at_it(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    work(airflow, "b", until=20, state="failed")
    airflow.run("a").clear()  # and runs, or fails, now
    assert work(airflow, "c", until=30) == (10, 30)


# -- where the ends lie -----------------------------------------------------------------------------------------------


def test_lag_ends_the_interval_that_long_ago(airflow: Deployment, clock: Callable[[datetime], None]) -> None:
    clock(DAY + 10 * HOUR)
    given = work(airflow, "a", start=DAY, lag=2 * HOUR)
    assert given == (DAY, DAY + 8 * HOUR)
    clock(DAY + 9 * HOUR)  # a clock that was set back: nothing to read
    assert work(airflow, "b", start=DAY, lag=2 * HOUR) == (DAY + 8 * HOUR, DAY + 8 * HOUR)


def test_overlap_reads_again_what_lies_shortly_before_the_mark(airflow: Deployment) -> None:
    work(airflow, "a", until=10, overlap=3)
    assert work(airflow, "b", until=20, overlap=3) == (7, 20)
    assert work(airflow, "c", until=30, overlap=300) == (0, 30), "not before start"
    airflow.run("b").clear()
    assert work(airflow, "b", until=99, overlap=5) == (7, 20), "a cleared run has the overlap that it was given"


def test_a_later_start_skips_nothing(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    assert work(airflow, "b", start=50, until=60, overlap=3) == (10, 60)


def test_the_mark_never_goes_back(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    assert work(airflow, "b", until=5) == (10, 10)
    assert work(airflow, "c", to=3) == (10, None)
    assert work(airflow, "d", until=20) == (10, 20)


def test_the_mark_never_goes_beyond_the_interval(airflow: Deployment) -> None:
    work(airflow, "a", to=50, until=10)
    assert work(airflow, "b", until=20) == (10, 20)


def test_an_interval_without_rows(airflow: Deployment) -> None:
    work(airflow, "a", to=None, until=10)
    assert work(airflow, "b", to=None) == (10, None)
    assert work(airflow, "c", until=20) == (10, 20)


def test_an_open_interval_must_be_told_how_far_it_came(airflow: Deployment) -> None:
    with pytest.raises(AirflowFailException, match="needs the last value"), opened(airflow, airflow.run("a")) as mark:
        mark.advance()


def test_an_advance_after_the_block_is_an_error_not_a_loss(airflow: Deployment) -> None:
    with opened(airflow, airflow.run("a"), until=10) as mark:
        pass
    with pytest.raises(AirflowFailException, match="inside the block"):
        mark.advance()


def test_a_mark_that_someone_set_back_is_not_taken_forward_by_what_was_read_beyond_it(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    work(airflow, "b", until=20)
    record = {**airflow.record, "mark": 4}
    airflow.asset[KEY] = json.dumps(record)
    assert work(airflow, "c", until=30) == (4, 30)


# -- runs that are given their interval -------------------------------------------------------------------------------


def test_a_backfill_reads_its_data_interval_and_moves_nothing(airflow: Deployment) -> None:
    work(airflow, "a", start=DAY, until=DAY + 9 * HOUR)
    before = dict(airflow.asset)
    airflow.run("b", run_type="backfill", interval=(DAY + HOUR, DAY + 2 * HOUR))
    just_before = (DAY + HOUR - MICROSECOND, DAY + 2 * HOUR - MICROSECOND)  # Airflow's has its beginning, and not its end
    assert work(airflow, "b", start=DAY, until=DAY + 20 * HOUR) == just_before
    assert work(airflow, "b", start=DAY, until=DAY + 20 * HOUR) == just_before, "its retry"
    assert airflow.asset == before
    assert work(airflow, "c", start=DAY, until=DAY + 10 * HOUR) == (DAY + 9 * HOUR, DAY + 10 * HOUR)


def test_a_backfill_of_earlier_runs_reads_their_data_interval_not_what_they_were_given(airflow: Deployment) -> None:
    """Airflow makes these runs anew (``reprocess_behavior``)."""
    work(airflow, "a", start=DAY, until=DAY + 9 * HOUR)
    run = airflow.run("a")
    run.clear()
    run.run_type, run.interval = "backfill", (DAY, DAY + HOUR)
    assert work(airflow, "a", start=DAY, until=DAY + 20 * HOUR) == (DAY - MICROSECOND, DAY + HOUR - MICROSECOND)


@pytest.mark.parametrize("state", ["success", "failed"])
@pytest.mark.parametrize("forgets", [False, True])
def test_what_a_run_had_proposed_before_a_backfill_made_it_anew_moves_nothing(
    airflow: Deployment, state: str, forgets: bool
) -> None:
    """It may have failed after its block; the backfill succeeds, and has read other rows."""
    work(airflow, "a", start=DAY, until=DAY + 5 * HOUR)
    work(airflow, "b", start=DAY, until=DAY + 9 * HOUR, state=state)
    run = airflow.run("b")
    if forgets:
        run.data.clear()
    run.clear()
    run.run_type, run.interval = "backfill", (DAY, DAY + HOUR)
    assert work(airflow, "b", start=DAY) == (DAY - MICROSECOND, DAY + HOUR - MICROSECOND)
    assert work(airflow, "c", start=DAY, until=DAY + 20 * HOUR) == (DAY + 5 * HOUR, DAY + 20 * HOUR)


ROWS = [DAY + timedelta(days=n) for n in range(10)]


@pytest.mark.parametrize("zone", [timezone.utc, ZoneInfo("Europe/Vienna"), ZoneInfo("America/New_York")])
@pytest.mark.parametrize("dates", [False, True])
def test_a_backfill_reads_exactly_the_rows_of_its_days_also_if_they_are_stamped_by_day(
    airflow: Deployment, zone: Any, dates: bool
) -> None:
    midnights = [datetime(2026, 3, 25, tzinfo=zone) + timedelta(days=n) for n in range(8)]  # a clock is put forward meanwhile
    read = []
    for first, last in itertools.pairwise(midnights):
        run_id = f"backfill {first}"
        interval = (first.astimezone(timezone.utc), last.astimezone(timezone.utc))
        context = airflow.context(airflow.run(run_id, run_type="backfill", interval=interval))
        context["task"].dag.timezone = zone
        rows = [one.date() for one in midnights] if dates else midnights
        with Watermark("orders", start=rows[0], asset=ASSET, context=context) as mark:
            read.append([row for row in rows if mark.since < row <= mark.until])
    assert read == [[row] for row in rows[:-1]]


@pytest.mark.parametrize(
    ("start", "interval"), [(0, (DAY, DAY + HOUR)), (DAY, (DAY, DAY)), (DAY, (None, None))], ids=["ints", "a point", "none"]
)
def test_a_backfill_without_a_usable_interval_says_what_to_do(airflow: Deployment, start: Any, interval: Any) -> None:
    airflow.run("b", run_type="backfill", interval=interval)
    with pytest.raises(AirflowFailException, match=r"Nothing was read, the mark stays. Give interval="):
        work(airflow, "b", start=start)
    assert airflow.asset == {}


def test_a_run_with_an_interval_of_its_own_moves_nothing(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    before = dict(airflow.asset)
    assert work(airflow, "b", interval=(2, 50)) == (2, 50)
    assert airflow.asset == before
    assert work(airflow, "c", until=20) == (10, 20)


# -- runs at once -----------------------------------------------------------------------------------------------------


def test_runs_at_once_read_from_one_mark_and_neither_undoes_the_other(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    with opened(airflow, airflow.run("b"), until=30) as b, opened(airflow, airflow.run("c"), until=20) as c:
        assert (b.since, c.since) == (10, 10)
        b.advance()
        c.advance()
    airflow.run("b").state = airflow.run("c").state = "success"
    assert work(airflow, "d", until=40) == (30, 40)


@pytest.mark.parametrize("b_state", ["success", "failed"])
def test_of_runs_at_once_only_the_successful_one_counts(airflow: Deployment, b_state: str) -> None:
    with opened(airflow, airflow.run("b"), until=30) as b, opened(airflow, airflow.run("c"), until=20) as c:
        b.advance()
        c.advance()
    airflow.run("b").state, airflow.run("c").state = b_state, "success"
    assert work(airflow, "d", until=40)[0] == {"success": 30, "failed": 20}[b_state]


CALLS = ["own-set", "look", "check", "write", "look-again"]
WINDOW = "write"
"""What another run writes right before the write, from its own look to its last one, is written over."""


@pytest.mark.parametrize("before", CALLS)
def test_a_run_that_proposes_in_the_midst_of_another_loses_nothing_but_in_one_window(airflow: Deployment, before: str) -> None:
    """And in the window the mark ends short: rows are read again, none is skipped."""
    work(airflow, "a", until=10)
    other = opened(airflow, airflow.run("other"), until=100)
    other.__enter__().advance()
    calls: list[str] = []

    def let_the_other_end(call: str) -> None:
        calls.append(call)
        if len(calls) == CALLS.index(before) + 1:
            airflow.at = lambda call: None
            other.__exit__(None, None, None)
            airflow.at = let_the_other_end

    with opened(airflow, airflow.run("this"), until=50) as mark:
        mark.advance()
        airflow.at = let_the_other_end
    airflow.at = lambda call: None
    assert calls[:5] == ["set", "get", "get", "set", "get"] or before == "check"
    airflow.run("other").state = airflow.run("this").state = "success"
    assert work(airflow, "next", until=200) == (50 if before == WINDOW else 100, 200)


def test_runs_at_once_are_warned_of(airflow: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    work(airflow, "a", until=10)
    assert "two runs" not in caplog.text
    airflow.max_active_runs = 16
    work(airflow, "b", until=20)
    assert "two runs of this task may work at once" in caplog.text


def test_an_asset_that_is_only_an_outlet_is_warned_of(airflow: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    work(airflow, "a", until=10)
    assert "inlets" not in caplog.text
    airflow.inlets = ()
    work(airflow, "b", until=20)
    assert "name its asset in the task's inlets too" in caplog.text


# -- where it is kept -------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    def store(context: Any) -> TaskVariableStore:
        return TaskVariableStore(host.task_identity(context), Named(context["variables"]))

    monkeypatch.setattr(host, "task_variable_store", store)


@pytest.mark.usefixtures("variables")
def test_without_an_asset_the_mark_is_the_tasks_across_its_runs(airflow: Deployment) -> None:
    assert work(airflow, "a", until=10, asset=None) == (0, 10)
    assert work(airflow, "b", until=20, asset=None) == (10, 20)
    assert airflow.asset == {}
    assert list(airflow.variables) == [f"dag.task.{KEY}"]


def test_the_name_of_a_variable_fits_and_stays_its_own() -> None:
    data: dict[str, str] = {}
    kept = Accessor(data, lambda what: None)
    for dag in ("d" * 240, "d" * 240 + "e"):
        TaskVariableStore(TaskIdentity(dag, "run", "task"), Named(kept)).set(KEY, {})
    assert len(data) == 2
    assert max(map(len, data)) <= 250


def test_an_asset_that_the_task_does_not_name_is_an_error(airflow: Deployment) -> None:
    airflow.assets = ()
    with pytest.raises(AirflowFailException, match=r"inlets=\[asset\], outlets=\[asset\]"):
        work(airflow, "a", until=10)


def test_marks_of_several_names_live_in_one_asset(airflow: Deployment) -> None:
    for name in ("orders", "items"):
        with Watermark(name, start=0, asset=ASSET, until=10, context=airflow.context(airflow.run("a"))) as mark:
            mark.advance()
    assert set(airflow.asset) == {"resumable.watermark.orders", "resumable.watermark.items"}


def test_a_store_that_is_down_fails_the_try_and_moves_nothing(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    airflow.is_down = True
    with pytest.raises(StateStoreError, match="next try"):
        work(airflow, "b", until=20)
    airflow.is_down = False
    assert work(airflow, "b", until=20) == (10, 20)


def test_an_asset_that_airflow_does_not_know_reads_as_no_mark_and_is_not_believed(airflow: Deployment) -> None:
    pytest.importorskip("airflow.sdk")
    """On 3.3.2 a read of an inactive asset answers 'no such key': only the write tells."""

    class Inactive:
        def get(self, key: str) -> None:
            return None

        def set(self, key: str, value: Any) -> None:
            raise answer_of_server(404, "Asset with name='orders' not found")

    context = {**airflow.context(airflow.run("a")), "asset_state_store": {ASSET: Inactive()}}
    with (
        pytest.raises(StateStoreError, match="Asset with name='orders' not found"),
        Watermark("orders", start=0, asset=ASSET, until=10, context=context),
    ):
        pytest.fail("nothing may be read")


def test_a_try_that_airflow_has_given_up_writes_no_mark() -> None:
    pytest.importorskip("airflow.sdk")

    class GivenUp:
        def set(self, key: str, value: Any) -> None:
            raise answer_of_server(404, "Task instance UUID('0199') not found")

    with pytest.raises(SupersededError):
        AssetStateStore(GivenUp()).set(KEY, {})


def test_a_mark_that_vanished_while_a_run_was_at_work_comes_back_with_its_proposal(airflow: Deployment) -> None:
    work(airflow, "a", until=10)
    with opened(airflow, airflow.run("b"), until=20) as mark:
        mark.advance()
        airflow.asset.clear()
    airflow.run("b").state = "success"
    assert work(airflow, "c", until=30) == (20, 30)


def test_a_mark_that_is_not_there_is_said_to_begin_at_start(airflow: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    work(airflow, "a", until=10)
    assert "there is no mark yet; it begins at 0" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 2, "type": "int", "mark": 3}', "newer release wrote it"),
        ('{"version": 1, "type": "str", "mark": "3"}', "holds a str, but start= is a int"),
        ('{"version": 1, "type": "int", "mark": "3"}', "cannot be read"),
        ('{"version": 1, "type": "int"}', "cannot be read"),
        ('{"version": 1, "type": ["int"], "mark": 3}', "holds a "),
        ("17", "cannot be read"),
    ],
)
def test_a_mark_that_cannot_be_read_is_never_taken_for_none(airflow: Deployment, text: str, message: str) -> None:
    airflow.asset[KEY] = text
    with pytest.raises(RecordError, match=message):
        work(airflow, "a", until=10)
    assert airflow.asset[KEY] == text


def test_a_mark_that_a_person_wrote_is_enough(airflow: Deployment) -> None:
    airflow.asset[KEY] = '{"version": 1, "type": "int", "mark": 41}'
    assert work(airflow, "a", until=50) == (41, 50)


def test_the_record_stays_small_over_many_runs(airflow: Deployment) -> None:
    for number in range(60):
        work(airflow, f"scheduled__2026-01-01T00:00:00+00:00-{number}", start=DAY, until=DAY + number * HOUR)
    assert len(airflow.record["proposed"]) == 20
    assert len(airflow.asset[KEY]) < 8000


# -- values -----------------------------------------------------------------------------------------------------------


PLUS_2 = timezone(timedelta(hours=2))
VALUES = [
    (DAY, DAY + timedelta(microseconds=1)),
    (datetime(2026, 1, 1, 2, tzinfo=PLUS_2), DAY + HOUR),
    (date(2026, 1, 1), date(2026, 1, 2)),
    (0, 2**70),
    ("", "käse"),
    ((DAY, 7), (DAY, 8)),
    (("a", 1, date(2026, 1, 1)), ("a", 2, date(2020, 1, 1))),
]


@pytest.mark.parametrize(("start", "until"), VALUES)
def test_values_come_back_as_they_were(airflow: Deployment, start: Any, until: Any) -> None:
    assert work(airflow, "a", start=start, until=until) == (start, until)
    since, _ = work(airflow, "b", start=start, to=None)
    assert since == until
    assert type(since) is type(until)


@pytest.mark.parametrize("start", [1.5, True, None, b"x", datetime(2026, 1, 1), (), (1, None), [1]])
def test_a_value_that_can_be_no_mark_is_refused_when_it_is_given(start: Any) -> None:
    with pytest.raises(ConfigurationError, match="mark stays"):
        Watermark("orders", start=start)


@pytest.mark.parametrize(
    "arguments",
    [
        {"until": "x"},
        {"lag": HOUR},
        {"lag": 5},
        {"overlap": HOUR},
        {"overlap": -1},
        {"overlap": True},
        {"start": DAY, "lag": HOUR, "until": DAY},
        {"start": DAY, "lag": -HOUR},
        {"start": DAY, "overlap": 5},
        {"start": "a", "overlap": 1},
        {"start": (DAY, 1), "overlap": HOUR},
        {"interval": (5, 3)},
        {"interval": 5},
        {"interval": (1, "x")},
        {"name": ""},
    ],
)
def test_wrong_arguments_are_errors_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Watermark(**{"name": "orders", "start": 0, **arguments})


def test_a_value_of_another_type_is_refused_by_advance(airflow: Deployment) -> None:
    with pytest.raises(AirflowFailException, match="is a str, but the mark is a int"):
        work(airflow, "a", to="7")


def test_times_are_cut_to_what_the_record_holds_never_rounded_up() -> None:
    class Nano(datetime):
        nanosecond = 999

    value = ValueType.of(DAY).checked(Nano(2026, 1, 1, 12, 0, 0, 5, tzinfo=timezone.utc), "until")
    assert value == datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=timezone.utc)
    assert type(value) is datetime


# -- the pure decisions -----------------------------------------------------------------------------------------------


def proposal(run: str, mark: int, until: int) -> Proposal:
    return Proposal(TaskIdentity("dag", run, "task"), mark, mark, until)


def test_proposals_are_committed_only_where_the_mark_has_come() -> None:
    mark = Mark(10, (proposal("a", 10, 20), proposal("b", 20, 30), proposal("far", 40, 50)))
    every = {p.task for p in mark.proposals}
    assert mark.committed(every).value == 30
    assert mark.committed(every - {mark.proposals[0].task}).value == 10, "never across a gap"
    assert mark.committed(set()) == mark
    assert Mark(10, mark.committed(every).proposals).committed(every).value == 10, "settled ones do not count again"


def test_proposals_that_still_count_are_kept_longest() -> None:
    mark = Mark(100, (proposal("waiting", 100, 200), *(proposal(f"old{i}", i, i + 1) for i in range(30)))).committed(set())
    kept = mark.proposing(proposal("new", 100, 150)).proposals
    assert len(kept) == 20
    assert [p.task.run_id for p in kept[-2:]] == ["waiting", "new"]


def test_the_table_of_intervals() -> None:
    kind = ValueType.of(0)
    assert give(10, start=0, until=20, overlap=None, kind=kind) == Interval(10, 10, 20)
    assert give(10, start=0, until=5, overlap=4, kind=kind) == Interval(10, 6, 10)
    assert repeat(Interval(10, 6, 20), 50).until == 20
    assert repeat(Interval(10, 6, None), 50).until == 50
    assert repeat(Interval(10, 6, None), 10).until is None
    assert repeat(Interval(10, 6, None, proposed=15), 50).until == 15
    assert reached(Interval(10, 6, 20), 30) == 20
    assert reached(Interval(10, 6, None), 30) == 30

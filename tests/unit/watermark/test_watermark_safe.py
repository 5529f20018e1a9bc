"""What people really write with a `Watermark`: two tasks and one mark, lists that change, sensors, values as SQL gives them."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import pytest

from resumable import ConfigurationError, Watermark, host
from resumable.identity import TaskIdentity
from resumable.watermark.intervals import Mark, Proposal
from resumable.watermark.values import ValueType
from tests.support.incremental import ASSET, DAY, Accessor, Deployment
from tests.support.names import AirflowFailException
from tests.support.watermarked import HOUR, KEY, Named, airflow, clock, opened, work  # noqa: F401

# ruff: noqa: F811

pytestmark = pytest.mark.usefixtures("no_waiting")

LIMIT = 65_535


class Tasks(Deployment):
    """Several tasks of one deployment, mapped ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[tuple[str, str, int], str] = {}

    def opened(self, run_id: str, task: str = "load", index: int = -1, **more: Any) -> Watermark:
        context = self.context(self.run(f"{run_id}/{task}/{index}"))
        ti = context["ti"]
        ti.run_id, ti.task_id, ti.map_index, ti.get_task_states = run_id, task, index, self.task_states
        self.states.setdefault((run_id, task, index), "running")
        arguments = {"name": "orders", "start": 0, "asset": ASSET, "context": context, **more}
        return Watermark(**arguments)

    def work(self, run_id: str, task: str = "load", index: int = -1, *, fails: bool = False, **more: Any) -> tuple[Any, Any]:
        to = more.pop("to", ...)
        try:
            with self.opened(run_id, task, index, **more) as mark:
                if fails:
                    raise ZeroDivisionError
                mark.advance() if to is ... else mark.advance(to)
        except ZeroDivisionError:
            self.states[run_id, task, index] = "failed"
        else:
            self.states[run_id, task, index] = "success"
        return mark.since, mark.until

    def task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str], map_index: int | None) -> Any:
        (task,), index = task_ids, -1 if map_index is None else map_index
        return {run: {task: self.states[run, task, index]} for run in run_ids if (run, task, index) in self.states}


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tasks: Tasks) -> None:
    monkeypatch.setattr(host, "variables", lambda task: Named(Accessor(tasks.variables, lambda what: None)))


# -- one mark, several tasks ------------------------------------------------------------------------------------------


def test_a_second_task_that_opens_the_mark_is_an_error_that_names_both(tasks: Tasks) -> None:
    """Two sources, one asset: what load_eu has read says nothing about load_us."""
    assert tasks.work("r1", "load_eu", until=10) == (0, 10)
    with pytest.raises(AirflowFailException, match=r"of task dag\.load_eu, and dag\.load_us opens it too") as raised:
        tasks.work("r1", "load_us", until=10)
    assert "shared=True" in str(raised.value)
    assert "moves=False" in str(raised.value)
    assert tasks.work("r2", "load_eu", until=20) == (10, 20)


@pytest.mark.usefixtures("tasks")
def test_also_if_the_first_one_has_read_nothing_yet(tasks: Tasks) -> None:
    tasks.work("r1", "load_eu", until=10, fails=True)
    with pytest.raises(AirflowFailException, match="load_eu"):
        tasks.work("r1", "load_us", until=10)


def test_a_mark_that_an_earlier_release_kept_is_of_the_task_that_moved_it(tasks: Tasks) -> None:
    tasks.work("r1", "load_eu", until=10)
    record = {key: value for key, value in tasks.record.items() if key != "belongs_to"}
    tasks.asset[KEY] = json.dumps(record)
    with pytest.raises(AirflowFailException, match="load_eu"):
        tasks.work("r2", "load_us", until=20)
    assert tasks.work("r2", "load_eu", until=20) == (10, 20)


def test_tasks_that_say_so_share_a_mark(tasks: Tasks) -> None:
    assert tasks.work("r1", "by_hour", until=10, shared=True) == (0, 10)
    assert tasks.work("r1", "by_hand", until=15, shared=True) == (10, 15)
    with pytest.raises(AirflowFailException, match="by_hand"):
        tasks.work("r2", "by_night", until=20)
    assert tasks.work("r2", "by_hour", until=20, shared=True) == (15, 20)


def test_a_task_that_follows_reads_what_the_one_before_it_in_the_run_has_read(tasks: Tasks) -> None:
    """Extract >> load."""
    for run, until, given in (("r1", 10, (0, 10)), ("r2", 20, (10, 20))):
        assert tasks.work(run, "extract", until=until) == given
        assert tasks.work(run, "load", until=until + 2, moves=False) == given
    assert tasks.work("r3", "extract", until=30) == (20, 30)


@pytest.mark.usefixtures("variables")
def test_a_task_that_follows_without_an_asset_is_told_that_it_needs_one(tasks: Tasks) -> None:
    """A mark in a Variable is of one task: no other one finds it."""
    tasks.work("r1", "extract", until=10, asset=None)
    with pytest.raises(AirflowFailException, match="asset="):
        tasks.work("r1", "load", moves=False, asset=None)
    assert tasks.work("r2", "extract", until=20, asset=None) == (10, 20)


def test_a_task_that_follows_repeats_its_interval_and_reads_nothing_after_a_quiet_run(tasks: Tasks) -> None:
    tasks.work("r1", "extract", until=10)
    tasks.work("r1", "load", moves=False, fails=True)
    tasks.work("r2", "extract", until=20)
    assert tasks.work("r1", "load", moves=False) == (0, 10), "its retry"
    tasks.work("r3", "extract", until=20)
    assert tasks.work("r3", "load", moves=False) == (20, 20), "there was nothing"
    with pytest.raises(AirflowFailException, match="no task of this run has said"):
        tasks.work("r4", "load", moves=False)
    assert tasks.work("r5", "extract", until=30) == (20, 30)


# -- mapped tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("asset", [ASSET, None])
def test_a_list_that_changes_gives_no_shop_anothers_mark(tasks: Tasks, asset: str | None) -> None:
    def run(run_id: str, shops: list[str], until: int, fails: str = "") -> dict[str, Any]:
        return {
            shop: tasks.work(run_id, index=i, name=f"orders-{shop}", asset=asset, until=until, fails=shop == fails)
            for i, shop in enumerate(shops)
        }

    run("r1", ["a", "b", "c"], 10)
    run("r2", ["a", "b", "c"], 20, fails="b")
    given = run("r3", ["a", "aa", "b", "c"], 30)
    assert given == {"a": (20, 30), "aa": (0, 30), "b": (10, 30), "c": (20, 30)}


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("asset", [ASSET, None])
@pytest.mark.parametrize("first_fails", [False, True])
def test_mapped_tasks_of_one_name_are_an_error_also_without_an_asset(tasks: Tasks, asset: str | None, first_fails: bool) -> None:
    tasks.work("r1", index=0, asset=asset, until=10, fails=first_fails)
    with pytest.raises(AirflowFailException, match="mapped tasks 0 and 1"):
        tasks.work("r1", index=1, asset=asset, until=10)
    assert tasks.work("r2", index=0, asset=asset, until=20)[0] == (0 if first_fails else 10)


# -- sensors ----------------------------------------------------------------------------------------------------------


def poke(tasks: Tasks, **more: Any) -> Any:
    mark = tasks.opened("r1", "wait", start=DAY, **more)
    mark._context["task"].poke = lambda context: True  # type: ignore[index]
    return mark


def test_a_sensor_sees_rows_that_came_after_its_first_poke(tasks: Tasks, clock: Callable[[datetime], None]) -> None:
    row = DAY + HOUR + timedelta(minutes=10)
    for number in range(3):
        clock(DAY + HOUR + number * timedelta(minutes=10))
        with poke(tasks, lag=timedelta(minutes=5)) as mark:
            found = mark.since < row <= mark.until
            if found:
                mark.advance()
    assert found
    assert mark.until == DAY + HOUR + timedelta(minutes=15)
    clock(DAY + 5 * HOUR)
    with poke(tasks, lag=timedelta(minutes=5)) as mark:
        assert mark.until == DAY + HOUR + timedelta(minutes=15), "what was advanced stays"


def test_a_sensor_asks_until_at_each_poke_and_another_task_does_if_it_says_so(tasks: Tasks) -> None:
    for number in range(3):
        with poke(tasks, until=lambda n=number: DAY + n * HOUR) as mark:
            assert mark.until == DAY + number * HOUR
    for number in range(3):
        with tasks.opened("r2", "other", name="other", until=lambda n=number: 10 + n, refresh=True) as mark:
            assert mark.until == 10 + number


def test_the_end_of_a_sensors_interval_never_goes_back(tasks: Tasks, clock: Callable[[datetime], None]) -> None:
    for hours in (3, 1):
        clock(DAY + hours * HOUR)
        with poke(tasks, lag=timedelta(0)) as mark:
            assert mark.until == DAY + 3 * HOUR


# -- values as they come ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "plain"),
    [(Decimal(7), 7), (7.0, 7), (uuid.UUID(int=7), str(uuid.UUID(int=7))), (PurePosixPath("/a/7"), "/a/7")],
)
def test_what_a_database_gives_for_a_value_is_that_value(airflow: Deployment, given: Any, plain: Any) -> None:
    start = 0 if plain == 7 else ""
    assert work(airflow, "a", start=start, to=given) == (start, None)
    since, _ = work(airflow, "b", start=start, until=given)
    assert (since, type(since)) == (plain, type(plain))
    assert Watermark("orders", start=given).kind == ValueType.of(plain)


class Part(str, Enum):
    LAST = "b"


class Masked(str):
    """A text that shows less than it is."""

    def __str__(self) -> str:
        return "***"


@pytest.mark.parametrize("given", [Part.LAST, Masked("b")])
def test_a_text_that_shows_itself_as_another_one_is_what_it_compares_as(airflow: Deployment, given: str) -> None:
    """Else the next run would begin behind rows that nobody has read."""
    work(airflow, "r1", start="", to=given)
    assert work(airflow, "r2", start="", until="c") == ("b", "c")
    assert work(airflow, "r3", start="", until=given) == ("c", "c")


@pytest.mark.parametrize("wrong", [7.5, Decimal("7.5"), float("inf"), Decimal("Infinity"), 2.0**60, {"0": 1}])
def test_a_number_that_is_no_whole_one_and_a_dict_are_told_what_to_give(airflow: Deployment, wrong: Any) -> None:
    with pytest.raises(AirflowFailException, match="can be no mark"):
        work(airflow, "a", to=wrong)


def test_a_value_that_is_too_long_for_a_record_is_refused(airflow: Deployment) -> None:
    with pytest.raises(AirflowFailException, match="bytes"):
        work(airflow, "a", start="", to="x" * 10_000)


MISSING = [None, float("nan"), Decimal("NaN"), Decimal("sNaN")]


@pytest.mark.parametrize("missing", MISSING)
def test_no_rows_mean_nothing_to_read_or_nothing_read(airflow: Deployment, missing: Any) -> None:
    work(airflow, "a", until=10)
    assert work(airflow, "b", to=missing) == (10, None), "an open interval stays put"
    assert work(airflow, "c", until=lambda: missing) == (10, 10), "select max(id) of an empty table"
    assert work(airflow, "d", to=missing, until=20) == (10, 20)
    assert work(airflow, "e", to=(missing, missing)[0], until=30) == (20, 30)


def test_what_pandas_gives_is_what_a_person_takes_it_for(airflow: Deployment) -> None:
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    empty = pandas.DataFrame({"id": pandas.Series([], dtype="int64"), "at": pandas.Series([], dtype="datetime64[ns, UTC]")})
    assert work(airflow, "a", to=empty["id"].max()) == (0, None)
    for number, value in enumerate((numpy.int64(7), numpy.float64(8), numpy.float32(9), pandas.Series([10, None]).max())):
        work(airflow, f"b{number}", to=value)
    assert work(airflow, "c", to=pandas.NA) == (10, None)
    assert work(airflow, "d", to=numpy.ma.masked_all(3, dtype="int64").max()) == (10, None)
    times = Deployment()
    assert work(times, "a", start=DAY, to=empty["at"].max()) == (DAY, None)
    work(times, "b", start=DAY, to=pandas.Timestamp("2026-01-02 00:00:00.123456789", tz="UTC"))
    assert work(times, "c", start=DAY, to=pandas.NaT)[0] == datetime(2026, 1, 2, 0, 0, 0, 123456, timezone.utc)
    with pytest.raises(AirflowFailException, match=r"pandas\.Timestamp"):
        work(times, "d", start=DAY, to=numpy.datetime64("2026-01-03"))
    assert work(times, "e", start=DAY, until=pandas.NaT) == (datetime(2026, 1, 2, 0, 0, 0, 123456, timezone.utc),) * 2


def test_a_mark_of_dates_takes_a_day_as_pandas_and_databases_have_it(airflow: Deployment) -> None:
    """``df["day"].max()`` is midnight without a time zone; a time of day, or a time zone, is no day."""
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    first = date(2026, 1, 1)
    column = pandas.Series(pandas.to_datetime(["2026-01-02"]))
    assert work(airflow, "a", start=first, to=column.max())[0] == first
    assert work(airflow, "b", start=first, to=numpy.datetime64("2026-01-03")) == (date(2026, 1, 2), None)
    assert work(airflow, "c", start=first, to=datetime(2026, 1, 4)) == (date(2026, 1, 3), None)
    assert work(airflow, "d", start=first, until=numpy.datetime64("NaT")) == (date(2026, 1, 4), date(2026, 1, 4))
    for wrong in (pandas.Timestamp("2026-01-05 05:00"), pandas.Timestamp("2026-01-05", tz="UTC")):
        with pytest.raises(AirflowFailException):
            work(airflow, "e", start=first, to=wrong)
    pairs = Deployment()
    assert work(pairs, "a", start=(first, 0), to=(pandas.Timestamp("2026-01-02"), numpy.int64(7))) == ((first, 0), None)
    assert work(pairs, "b", start=(first, 0), until=(date(2026, 1, 3), 0))[0] == (date(2026, 1, 2), 7)


@pytest.mark.parametrize("name", ["since", "advance", "is_repeat"])
def test_a_mark_that_is_used_without_its_block_says_what_to_write(airflow: Deployment, name: str) -> None:
    mark = opened(airflow, airflow.run("a"))
    with pytest.raises(AirflowFailException, match=r"with Watermark\(\.\.\.\) as mark"):
        getattr(mark, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mark.nothing


# -- records and arguments --------------------------------------------------------------------------------------------


def test_a_record_of_long_values_never_passes_the_limit_and_skips_nothing(airflow: Deployment) -> None:
    ends = [f"{n:02}" + "x" * 1900 for n in range(40)]
    for number, end in enumerate(ends):
        since, _ = work(airflow, f"r{number}", start="", until=end)
        assert since == ("" if number == 0 else ends[number - 1])
        assert len(airflow.asset[KEY]) <= LIMIT


def test_proposals_that_still_count_are_dropped_last() -> None:
    def proposal(run: str, *, settled: bool) -> Proposal:
        return Proposal(TaskIdentity("dag", run, "task"), "a" * 900, "a" * 900, "b" * 900, is_settled=settled)

    mark = Mark("a" * 900, tuple(proposal(f"r{n}", settled=n % 2 == 0) for n in range(20)))
    kept = mark.fitting(ValueType.of(""), 30_000).proposals
    assert [p.task.run_id for p in kept] == [f"r{n}" for n in range(1, 20, 2)]


FLAGS = [{"until": lambda mark: mark}, {"shared": "false"}, {"shared": 1}, {"moves": "no"}, {"moves": None}, {"refresh": "yes"}]


@pytest.mark.parametrize("arguments", [{"name": "a b"}, {"lag": 5}, {"start": 1.5}, {"until": "x"}, {"interval": (5, 3)}, *FLAGS])
def test_a_wrong_argument_fails_the_task_without_its_retries(arguments: dict[str, Any]) -> None:
    with pytest.raises(AirflowFailException) as raised:
        Watermark(**{"name": "orders", "start": 0, **arguments})
    assert isinstance(raised.value, ConfigurationError)


def test_a_retry_goes_on_with_a_mark_of_an_earlier_release(airflow: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = airflow.run("a")
    run.data[KEY] = (
        '{"version": 1, "type": "int", "mark": 0, "since": 0, "until": 10, "proposed": null, "moves": true, "generation": null}'
    )
    airflow.asset[KEY] = '{"version": 1, "type": "int", "mark": 0, "proposed": []}'
    assert work(airflow, "a", until=99) == (0, 10)
    assert work(airflow, "b", until=20) == (10, 20)
    assert airflow.record["belongs_to"] == {"dag": "dag", "task": "task"}


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [None, float("nan"), Decimal("NaN")])
def test_an_empty_page_after_others_takes_back_nothing_of_what_they_have_loaded(airflow: Deployment, missing: Any) -> None:
    """``for page in pages: load(page); mark.advance(page["id"].max())``: the last page is often an empty one."""
    first = airflow.run("r1")
    with opened(airflow, first) as mark:
        for last in (10, 20, missing):
            mark.advance(last)
    first.state = "success"
    assert work(airflow, "r2", 30)[0] == 20


def test_an_until_that_finds_nothing_keeps_no_coroutine_waiting(airflow: Deployment) -> None:
    """``until=lambda: next(rows)``, where there is no row: a StopIteration never ends a future before Python 3.12."""

    async def run() -> None:
        async with opened(airflow, airflow.run("r1"), until=lambda: next(iter([]))):
            pytest.fail("opened")

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(asyncio.wait_for(run(), 20))


# -- extract >> load, where the mark has gone past --------------------------------------------------------------------


def test_a_task_that_follows_in_a_cleared_run_of_earlier_reads_what_the_one_before_it_has_read(tasks: Tasks) -> None:
    """r1's extract failed, later runs went on beyond it; a person clears r1."""
    tasks.work("r1", "extract", until=10, fails=True)
    for run, until in (("r2", 20), ("r3", 30)):
        tasks.work(run, "extract", until=until)
        tasks.work(run, "load", moves=False)
    tasks.work("r4", "extract", until=40)
    assert tasks.work("r1", "extract", until=99) == (0, 10)
    assert tasks.work("r1", "load", moves=False) == (0, 10)
    assert tasks.work("r5", "extract", until=50) == (40, 50), "it has not moved the mark"


def test_a_task_that_follows_in_a_run_that_others_have_overtaken_reads_what_the_one_before_it_has_read(tasks: Tasks) -> None:
    with tasks.opened("r1", "extract", until=10) as mark:
        tasks.work("r2", "extract", until=20)
        tasks.work("r3", "extract", until=30)
        mark.advance()
    tasks.states["r1", "extract", -1] = "success"
    assert tasks.work("r1", "load", moves=False) == (0, 10)
    assert tasks.work("r4", "extract", until=40) == (30, 40)


def test_an_interval_of_its_own_is_given_to_the_task_that_follows_too(tasks: Tasks) -> None:
    tasks.work("r1", "extract", until=10)
    tasks.work("by hand", "extract", interval=(3, 8))
    with pytest.raises(AirflowFailException, match="give this one the same"):
        tasks.work("by hand", "load", moves=False)
    assert tasks.work("by hand", "load", moves=False, interval=(3, 8)) == (3, 8)
    assert tasks.work("r2", "extract", until=20) == (10, 20)

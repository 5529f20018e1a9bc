"""What a harsh user does to `Watermark`: no row may be skipped by it."""

from __future__ import annotations

import asyncio
import threading
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from resumable import ConfigurationError, Watermark, host
from resumable.stores import MemoryStore
from resumable.stores.task_variables import TaskVariableStore
from resumable.watermark.intervals import Mark
from resumable.watermark.values import ValueType
from tests.support.incremental import ASSET, DAY, Accessor, Deployment
from tests.support.names import AirflowFailException
from tests.support.watermarked import HOUR, KEY, Named, airflow, opened, work  # noqa: F401

# ruff: noqa: F811

pytestmark = pytest.mark.usefixtures("no_waiting")


def as_mapped(airflow: Deployment, run_id: str, index: int, **more: Any) -> Watermark:
    run = airflow.run(f"{run_id}-{index}")
    context = airflow.context(run)
    context["ti"].map_index, context["ti"].run_id = index, run_id
    return Watermark("orders", **{"context": context, "start": 0, "asset": ASSET, "until": 10, **more})


def test_mapped_tasks_that_share_a_mark_are_an_error_and_neither_skips_the_others_rows(airflow: Deployment) -> None:
    """One reads shop A, the other shop B: the mark of both would go on when A alone succeeded."""
    with as_mapped(airflow, "r", 0) as mark:
        mark.advance()
    with pytest.raises(AirflowFailException, match="mapped"), as_mapped(airflow, "r", 1):
        pytest.fail("read")


def test_mapped_tasks_that_share_a_mark_at_once_are_an_error_of_the_later_one(airflow: Deployment) -> None:
    one, other = as_mapped(airflow, "r", 0), as_mapped(airflow, "r", 1)
    first, second = one.__enter__(), other.__enter__()
    first.advance()
    second.advance()
    one.__exit__(None, None, None)
    with pytest.raises(AirflowFailException, match="mapped"):
        other.__exit__(None, None, None)
    assert [p["map_index"] for p in airflow.record["proposed"]] == [0]


def test_a_mapped_task_may_have_a_mark_of_its_own_on_the_asset(airflow: Deployment) -> None:
    for index in (0, 1):
        run = airflow.run(f"r-{index}")
        context = airflow.context(run)
        context["ti"].map_index, context["ti"].run_id = index, "r"
        with Watermark(f"orders-{index}", start=0, asset=ASSET, until=10, context=context) as mark:
            mark.advance()
    assert len(airflow.asset) == 2


# -- the Variable of a task's mark ------------------------------------------------------------------------------------


def variable_of(monkeypatch: pytest.MonkeyPatch, data: dict[str, str], dag: str, task: str, index: int = -1) -> TaskVariableStore:
    monkeypatch.setattr(host, "variables", lambda task: Named(Accessor(data, lambda what: None)))
    context = {"ti": SimpleNamespace(dag_id=dag, task_id=task, map_index=index, run_id="r")}
    found: Any = host.task_variable_store(context)
    return found  # type: ignore[no-any-return]


def test_no_two_tasks_share_a_variable_whatever_dots_are_in_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    data: dict[str, str] = {}
    tasks = [
        ("a.b", "c", -1),
        ("a", "b.c", -1),
        ("a", "b", -1),
        ("a", "b.3", -1),
        ("a.b", "3", -1),
    ]
    for number, ids in enumerate(tasks):
        variable_of(monkeypatch, data, *ids).set(KEY, number)
    assert [variable_of(monkeypatch, data, *ids).get(KEY) for ids in tasks] == list(range(len(tasks)))


def test_the_variable_of_a_mapped_task_does_not_hang_on_its_place_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    data: dict[str, str] = {}
    variable_of(monkeypatch, data, "a", "b", 3).set(KEY, 1)
    assert variable_of(monkeypatch, data, "a", "b", 30).get(KEY) == 1


def test_what_an_earlier_release_kept_under_a_place_in_the_list_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"a.b.3.resumable.watermark.orders.1331a44b74178faf78da": '"7"'}
    store = variable_of(monkeypatch, data, "a", "b", 3)
    assert store.get(KEY) == 7
    store.set(KEY, 8)
    assert (store.get(KEY), variable_of(monkeypatch, data, "a", "b", 0).get(KEY)) == (8, 8)


def test_the_name_of_an_ordinary_tasks_variable_is_what_a_person_would_type(monkeypatch: pytest.MonkeyPatch) -> None:
    data: dict[str, str] = {}
    variable_of(monkeypatch, data, "per_task", "count").set(KEY, 1)
    assert list(data) == [f"per_task.count.{KEY}"]


@pytest.mark.parametrize("ids", [("tägliche Ladung", "t"), ("etl", "refresh_token"), ("my_secret_dag", "t"), ("d" * 240, "t")])
def test_a_variables_name_fits_a_url_and_is_not_masked(monkeypatch: pytest.MonkeyPatch, ids: tuple[str, str]) -> None:
    data: dict[str, str] = {}
    variable_of(monkeypatch, data, *ids).set(KEY, 1)
    (name,) = data
    assert name.isascii()
    assert " " not in name
    assert not any(word in name for word in ("token", "secret"))
    assert len(name) <= 250


@pytest.mark.parametrize("name", ["a/b", "a b", "a?b", "", "x" * 101, 5])
def test_a_name_that_cannot_be_a_key_everywhere_is_refused_at_once(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="no name"):
        Watermark(name, start=0)


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [HOUR, timedelta(hours=36)])
def test_an_overlap_of_dates_that_would_be_cut_off_is_refused(step: timedelta) -> None:
    """Python takes whole days off a date: 36 hours would be one day, one hour none."""
    with pytest.raises(ConfigurationError, match="whole days"):
        Watermark("orders", start=date(2026, 1, 1), overlap=step)


@pytest.mark.parametrize("start", [datetime(1, 1, 1, tzinfo=timezone.utc), date(1, 1, 1)])
def test_an_overlap_that_reaches_back_before_all_times_begins_at_start(airflow: Deployment, start: Any) -> None:
    assert work(airflow, "a", start=start, overlap=timedelta(days=2), to=None)[0] == start
    assert work(airflow, "b", start=start, overlap=timedelta(days=2), to=None)[0] == start


def test_the_hour_that_a_clock_shows_twice_is_two_hours(airflow: Deployment) -> None:
    vienna = ZoneInfo("Europe/Vienna")
    first, second = (datetime(2026, 10, 25, 2, 30, tzinfo=vienna, fold=fold) for fold in (0, 1))
    since, until = work(airflow, "a", start=first, until=second)
    assert until - since == HOUR
    assert work(airflow, "b", start=first, to=None)[0] == datetime(2026, 10, 25, 1, 30, tzinfo=timezone.utc)


def test_a_mark_that_a_person_wrote_with_z_is_read_on_every_python() -> None:
    data = {"type": "datetime", "mark": "2026-03-01T00:00:00Z"}
    assert Mark.from_json(data, ValueType.of(DAY)).value == datetime(2026, 3, 1, tzinfo=timezone.utc)


# -- a store that nobody else cleans up -------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [10, None])
def test_before_3_3_nothing_of_a_run_is_left_once_it_has_succeeded(
    airflow: Deployment, monkeypatch: pytest.MonkeyPatch, to: int | None
) -> None:
    store, callbacks = MemoryStore(), []
    monkeypatch.setattr(host, "state_store", lambda context: store)
    monkeypatch.setattr(host, "after_success", lambda operator, context, forget: callbacks.append(forget))
    with opened(airflow, airflow.run("a")) as mark:
        mark.advance(to)
    assert set(store.data) == {KEY}, "a retry needs it until Airflow has taken note of the success"
    for callback in callbacks:
        callback()
    assert store.data == {}


def test_a_deployment_without_assets_state_is_told_what_to_do(airflow: Deployment) -> None:
    context = airflow.context(airflow.run("a"))
    del context["asset_state_store"]
    mark = Watermark("orders", start=0, asset=ASSET, context=context)
    with pytest.raises(AirflowFailException, match="leave asset= out"), mark:
        pytest.fail("read")


def test_in_a_coroutine_no_store_is_asked_in_the_loops_thread(airflow: Deployment) -> None:
    threads: set[threading.Thread] = set()
    airflow.at = lambda call: threads.add(threading.current_thread())

    async def load(run: str, until: int) -> tuple[int, int]:
        async with opened(airflow, airflow.run(run), until=until) as mark:
            mark.advance()
        airflow.run(run).state = "success"
        return mark.since, mark.until

    assert [asyncio.run(load("a", 10)), asyncio.run(load("b", 20))] == [(0, 10), (10, 20)]
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("ids", [(0, 10**30, 2 * 10**30), (-(2**70), 0, 5), (2**63, 2**64 - 1, 2**64)])
def test_a_mark_of_ids_of_more_than_64_bits_moves_as_any_other(airflow: Deployment, ids: tuple[int, ...]) -> None:
    """NUMERIC(38) of Snowflake and Oracle. Airflow's own way from a task to its server knows no such numbers."""
    start, first, second = ids
    assert work(airflow, "r1", to=first, start=start) == (start, None)
    assert work(airflow, "r2", to=second, start=start) == (first, None)
    assert work(airflow, "r3", to=second, start=start) == (second, None)


@pytest.mark.parametrize("name", ["caf\udce9.csv", Path("caf\udce9.csv"), ("a", "\ud800")], ids=repr)
def test_a_mark_that_is_no_text_is_an_error_before_anything_is_read(airflow: Deployment, name: Any) -> None:
    start = ("a", "") if isinstance(name, tuple) else ""
    with pytest.raises(AirflowFailException, match="no text that Airflow can keep"):
        opened(airflow, airflow.run("r"), start=name)
    with pytest.raises(AirflowFailException, match="no text that Airflow can keep"):
        work(airflow, "r", to=name, start=start)


def test_a_number_that_python_does_not_write_out_is_a_clear_error(airflow: Deployment) -> None:
    with pytest.raises(AirflowFailException, match="more than 2000 bytes"):
        opened(airflow, airflow.run("r"), start=10**5000)


@pytest.mark.parametrize(
    "zone", [timezone(timedelta(hours=5)), timezone(timedelta(hours=-5)), ZoneInfo("Europe/Berlin"), timezone.utc]
)
def test_the_beginning_and_the_end_of_time_may_be_given_in_any_time_zone(airflow: Deployment, zone: Any) -> None:
    first, last = datetime.min.replace(tzinfo=zone), datetime.max.replace(tzinfo=zone)
    since, until = work(airflow, "r1", start=first, until=last)
    assert (since.year, since.utcoffset()) == (1, timedelta(0))
    assert until.utcoffset() == timedelta(0)
    assert until >= datetime.max.replace(tzinfo=timezone.utc) - timedelta(days=1)
    assert work(airflow, "r2", start=first, until=last) == (until, until)


def test_a_lag_of_more_than_all_time_reads_nothing(airflow: Deployment) -> None:
    assert work(airflow, "r1", start=DAY, lag=timedelta.max) == (DAY, DAY)


NO_PAIRS: dict[str, Any] = {
    "text": "15",
    "bytes": b"15",
    "set": {"1", "5"},
    "object": {"1": 1, "5": 2},
    "generator": (part for part in "15"),
    "one": ("1",),
    "number": 5,
}


@pytest.mark.parametrize("pair", NO_PAIRS.values(), ids=NO_PAIRS.keys())
def test_what_has_two_parts_by_chance_is_no_interval(airflow: Deployment, pair: Any) -> None:
    with pytest.raises(AirflowFailException, match="is no pair"):
        opened(airflow, airflow.run("r"), start="0", interval=pair)
    assert opened(airflow, airflow.run("r"), start="0", interval=["1", "5"]).interval == ("1", "5")

"""What a harsh user does to `Checkpoint` and `once`: nothing is left out silently, and what is wrong says so at once."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time

import pytest

from resumable import Checkpoint, ItemsFailedError, RecordError, once
from resumable.errors import SupersededError
from tests.support.checkpointed import ITEMS, KEY, Cloud, WorkError, amap, stopped_task, task, until  # noqa: F401
from tests.support.names import STOPPED, AirflowFailException, AirflowRescheduleException

# ruff: noqa: F811


def attempt(task):
    """A context that is the same for all checkpoints of one attempt."""
    context = task.context()
    return lambda name="files", **arguments: Checkpoint(name, context=context, **{"every": 10, **arguments})


# -- nothing is left out ----------------------------------------------------------------------------------------------


def test_a_page_cannot_be_passed_over_as_failed(task):
    def fetch(cursor):
        return [cursor], (cursor or 0) + 1 if (cursor or 0) < 3 else None

    with pytest.raises(AirflowFailException, match="pages"), task.checkpoint() as checkpoint:
        for page in checkpoint.pages(fetch):
            if page == [1]:
                checkpoint.fail(page, WorkError())
    assert task.data[KEY]["cursor"] == 1


def test_an_inner_checkpoint_that_keeps_its_name_for_the_next_outer_item_is_an_error_and_no_row_is_skipped(task):
    worked = []
    open_ = attempt(task)
    with pytest.raises(AirflowFailException, match="a name of its own"), open_("tables") as tables:
        for table in tables.items(["a", "b"]):
            with open_("rows") as rows:
                worked += [(table, int(row)) for row in rows.items(range(5))]
    assert worked == [("a", row) for row in range(5)]
    assert task.data["resumable.checkpoint.tables"]["done"] == 1


def test_inner_checkpoints_with_names_of_their_own_go_on_where_each_of_them_stopped(task):
    def run(stop=None):
        worked, open_ = [], attempt(task)
        with open_("tables") as tables:
            for table in tables.items(["a", "b"]):
                with open_(f"rows-{table}") as rows:
                    for row in rows.items(range(5)):
                        if (table, row) == stop:
                            raise WorkError
                        worked.append((table, row))
        return worked

    with pytest.raises(WorkError):
        run(("b", 2))
    assert run() == [("b", 2), ("b", 3), ("b", 4)]


def test_one_name_cannot_be_open_twice_at_once(task):
    open_ = attempt(task)
    with pytest.raises(AirflowFailException, match="open already"), open_() as one:
        for _ in one.items(ITEMS):
            with open_():
                pytest.fail("opened")


def test_one_name_again_in_the_same_attempt_says_that_its_items_are_done(task, caplog):
    """A sensor that pokes, a retry loop around the block: legitimate, but not silent."""
    open_ = attempt(task)
    for _ in range(2):
        with open_() as checkpoint:
            worked = [str(item) for item in checkpoint.items(ITEMS)]
    assert worked == []
    assert "completed earlier in this attempt" in caplog.text


# -- the effect and its record in one transaction ---------------------------------------------------------------------


def test_the_token_stays_after_a_siblings_clear_so_that_nothing_committed_is_done_twice(task):
    target = {}

    def run(stop=None):
        worked = []
        with task.checkpoint(every=1000, seconds=1e9, committed=lambda token: target.get(token, ())) as checkpoint:
            for item in checkpoint.items(ITEMS):
                if item == stop:
                    raise WorkError
                target.setdefault(checkpoint.token, []).append(item)
                worked.append(item)
        return worked

    with pytest.raises(WorkError):
        run("f030")
    task.data[KEY] = {**task.data[KEY], "ranges": "", "done": 0}  # as after a SIGKILL: nothing was written since the start
    task.clears += 1
    assert run() == ITEMS[30:]
    task.clears += 1
    assert run() == []
    assert len(target) == 1
    task.clear()
    assert run() == ITEMS


# -- a store that is down ---------------------------------------------------------------------------------------------


def test_while_the_store_is_down_it_is_not_asked_again_for_each_item(task, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    context = task.context()
    done = context["task_state_store"]._effects.done
    with Checkpoint("files", context=context, every=10, seconds=3600) as checkpoint:
        for number, _ in enumerate(checkpoint.items(range(1000))):
            task.down = 20 < number < 990
    assert done.count("store.set") < 20
    assert task.data[KEY]["state"] == "done"


class Objects:
    def __init__(self):
        self.data, self.down = {}, False

    def put(self, name, data):
        if self.down:
            raise OSError("no route")
        self.data[name] = data

    def get(self, name):
        if self.down:
            raise OSError("no route")
        return self.data[name] if name in self.data else (_ for _ in ()).throw(FileNotFoundError(name))

    def delete(self, name):
        if self.down:
            raise OSError("no route")
        self.data.pop(name, None)


@pytest.fixture
def objects(monkeypatch):
    objects = Objects()
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("resumable.checkpoint.kept.ObjectFolder.configured", lambda identity: objects)
    monkeypatch.setattr("resumable.host.value_limit", lambda: 2000)
    return objects


def half(task, **arguments):
    """Do every second of 20,000 items, in an order that makes no ranges."""
    with pytest.raises(ItemsFailedError), task.checkpoint(every=5000, **arguments) as checkpoint:
        for item in checkpoint.items(range(20_000)):
            if hash((item, 7)) % 2:
                checkpoint.fail(item, WorkError())


def test_an_object_storage_that_is_down_does_not_stop_the_work(task, objects):
    with pytest.raises(ItemsFailedError), task.checkpoint(every=5000) as checkpoint:
        for item in checkpoint.items(range(20_000)):
            objects.down = 4000 < item < 15_000
            if hash((item, 7)) % 2:
                checkpoint.fail(item, WorkError())
    assert task.data[KEY]["object"] in objects.data
    assert len(objects.data) == 1


def test_a_pattern_of_few_ranges_that_is_too_long_for_a_small_limit_goes_into_an_object_as_well(task, objects):
    shuffled = sorted(range(20_000), key=lambda item: hash((item, 7)))
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        for number, item in enumerate(checkpoint.items(shuffled)):
            if not number % 300:
                checkpoint.fail(item, WorkError())
    assert task.run(shuffled) == shuffled[::300]


def test_an_object_that_is_gone_is_an_error_that_says_so_and_never_a_start_over(task, objects):
    half(task)
    objects.data.clear()
    with pytest.raises(RecordError, match="is gone"):
        task.run(range(20_000))


# -- what cannot be kept is said at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", [(1, 2), {1: "a"}, b"x", 1j, float("nan")])
def test_a_cursor_that_would_come_back_as_another_one_is_an_error_at_the_first_page(task, cursor):
    pages = []
    with pytest.raises(AirflowFailException, match="JSON"), task.checkpoint() as checkpoint:
        for page in checkpoint.pages(lambda _: ("page", cursor)):
            pages.append(page)
    assert pages == []


@pytest.mark.parametrize(
    "arguments",
    [{"seconds": "x"}, {"seconds": -1}, {"seconds": float("nan")}, {"seconds": True}, {"every": 2.5}, {"name": "a b"}],
)
def test_wrong_arguments_are_errors_at_once(arguments):
    with pytest.raises(ValueError, match="Nothing was done"):
        Checkpoint(**{"name": "files", **arguments})


@pytest.mark.parametrize("arguments", [{"concurrency": "5"}, {"concurrency": 2.5}, {"tries": 0}, {"on_error": "x"}])
def test_wrong_arguments_of_map_are_errors_before_any_work(task, arguments):
    async def work(item):
        pytest.fail("worked")

    with pytest.raises(AirflowFailException, match="Nothing was done"):
        amap(task, work, **arguments)


def test_a_plain_for_in_a_coroutine_is_told_to_be_async_for(task):
    async def run():
        async with task.checkpoint() as checkpoint:
            for _ in checkpoint.items(ITEMS):
                pytest.fail("worked")

    with pytest.raises(AirflowFailException, match="async for"):
        asyncio.run(run())


def test_pages_of_a_coroutine(task):
    asked = []

    async def fetch(cursor):
        await asyncio.sleep(0)
        asked.append(cursor)
        return [cursor], (cursor or 0) + 1 if (cursor or 0) < 5 else None

    async def run(stop=None):
        pages = []
        async with task.checkpoint() as checkpoint:
            async for page in checkpoint.pages(fetch):
                if page == stop:
                    raise WorkError
                pages.append(page)
        return pages

    with pytest.raises(WorkError):
        asyncio.run(run([3]))
    assert asyncio.run(run()) == [[3], [4], [5]]
    assert asyncio.run(run()) == []
    assert asked == [None, 1, 2, 3, 3, 4, 5]


def test_an_error_that_no_try_can_mend_uses_up_none(task):
    """As Airflow's own `AirflowFailException`: else three retries are spent on it before somebody hears of it."""
    with pytest.raises(AirflowFailException, match="Two items"):
        task.run(["a", "a"])
    task.stopped(ITEMS, 5)
    with pytest.raises(AirflowFailException, match="on_change=fail"):
        task.run(ITEMS, spec="v2", resume_policy={"on_change": "fail"})
    with pytest.raises(AirflowFailException, match="JSON cannot carry"):
        once("c", lambda: {1, 2}, context=task.context())


def test_a_work_that_says_no_other_try_is_wanted_is_believed(task):
    async def work(item):
        if item == "f003":
            raise AirflowFailException("the bucket is gone")

    with pytest.raises(AirflowFailException, match="the bucket is gone"):
        amap(task, work)


def test_of_many_failed_items_a_few_are_logged(task, caplog):
    with pytest.raises(ItemsFailedError, match="1000 items"), task.checkpoint() as checkpoint:
        for item in checkpoint.items(range(1000)):
            checkpoint.fail(item, WorkError())
    assert sum("failed" in record.message for record in caplog.records) < 30


# -- told to stop -----------------------------------------------------------------------------------------------------


def test_a_clear_while_running_ends_quietly_though_the_state_is_closed_to_it(stopped_task, monkeypatch):
    """The server refuses its writes; an error would run the failure callbacks of a task that did not fail."""
    task = stopped_task
    task.state = "restarting"
    made = task.context

    def context():
        found = made()
        store = found["task_state_store"]
        set_ = store.set

        def refused(key, value):
            if task.own_on_kill:
                raise SupersededError("cleared")
            set_(key, value)

        store.set = refused
        return found

    task.context = context
    with pytest.raises(STOPPED), task.checkpoint(every=1000) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f030":
                signal.raise_signal(signal.SIGTERM)
                time.sleep(20)


def test_an_item_that_fails_while_the_worker_goes_away_uses_up_no_try(stopped_task):
    """The proxy beside it may be gone already: the item is worked again after the hand-back, and fails then if it has to."""
    task = stopped_task
    with pytest.raises(AirflowRescheduleException), task.checkpoint(every=1000) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f030":
                signal.raise_signal(signal.SIGTERM)
                until(lambda: checkpoint._block.is_stopping)
                raise WorkError
    assert task.run(ITEMS) == ITEMS[30:]


def test_an_eviction_with_many_coroutines_at_once_hands_back_and_loses_nothing(stopped_task):
    task, worked = stopped_task, []

    async def work(item):
        if item == 500 and task.try_number == 1:
            signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.005)
        worked.append(item)

    with pytest.raises(AirflowRescheduleException):
        amap(task, work, items=range(2000), concurrency=50)
    assert len(worked) < 2000
    amap(task, work, items=range(2000), concurrency=50)
    assert sorted(worked) == list(range(2000))


def test_a_timeout_around_map_keeps_what_is_done(task):
    worked = []

    async def work(item):
        worked.append(item)
        if len(worked) == 50:
            await asyncio.sleep(60)

    async def run():
        async with task.checkpoint(every=1000) as checkpoint:
            await asyncio.wait_for(checkpoint.map(work, ITEMS, concurrency=1), 0.3)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(run())
    assert task.data[KEY]["done"] == 49


def test_a_stop_while_only_once_is_open_calls_the_operators_own_on_kill(stopped_task):
    """Also after an execution_timeout, when Airflow calls on_kill itself: `once` takes nothing away from the operator."""
    task, cloud = stopped_task, Cloud()
    once("c", cloud.create, cleanup=cloud.remove, context=task.context())
    signal.raise_signal(signal.SIGTERM)
    until(lambda: task.own_on_kill == [1])
    assert cloud.removed == []
    task.end()


def test_once_in_a_thread_of_a_coroutine_is_cleaned_up_when_a_user_ends_the_task(stopped_task):
    task, cloud = stopped_task, Cloud()
    task.state = "failed"
    context = task.context()
    asyncio.run(asyncio.to_thread(once, "c", cloud.create, cleanup=cloud.remove, context=context))
    signal.raise_signal(signal.SIGTERM)
    until(lambda: len(cloud.removed) == 1)
    task.end("on_failure_callback")


# -- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["the task fails", "a user ends it"])
def test_what_was_made_last_is_cleaned_up_first(stopped_task, how):
    """A cluster stands in its network: the network cannot go before it."""
    task, removed = stopped_task, []
    context = task.context()
    network = once("network", lambda: "network", cleanup=removed.append, context=context)
    once("cluster", lambda: f"cluster in {network}", cleanup=removed.append, context=context)
    if how == "a user ends it":
        task.state = "failed"
        signal.raise_signal(signal.SIGTERM)
        until(lambda: len(removed) == 2)
    task.end("on_failure_callback")
    assert removed == ["cluster in network", "network"]


def test_a_value_that_holds_a_secret_is_never_kept_and_is_cleaned_up(task, monkeypatch):
    removed = []
    with pytest.raises(AirflowFailException, match="secret"):
        once("c", lambda: {"host": "h", "password": "hunter2"}, cleanup=removed.append, context=task.context())
    assert "hunter2" not in json.dumps(task.data)
    assert len(removed) == 1


def test_a_value_that_is_too_large_is_never_kept_and_is_cleaned_up(task):
    removed = []
    with pytest.raises(AirflowFailException, match="bytes"):
        once("c", lambda: "x" * 70_000, cleanup=removed.append, context=task.context())
    assert len(removed) == 1


def test_a_once_in_the_creation_of_another_is_kept_by_itself(task):
    made = []

    def network():
        made.append("network")
        return "n"

    def cluster():
        made.append("cluster")
        inside = once("network", network, context=context)
        if made.count("cluster") == 1:
            raise WorkError
        return f"c in {inside}"

    context = task.context()
    with pytest.raises(WorkError):
        once("cluster", cluster, context=context)
    context = task.context()
    assert once("cluster", cluster, context=context) == "c in n"
    assert made == ["cluster", "network", "cluster"]


def test_threads_that_ask_at_once_for_one_value_make_it_once(task):
    made, context, values = [], task.context(), []

    def create():
        made.append(1)
        time.sleep(0.05)
        return f"cluster {len(made)}"

    threads = [threading.Thread(target=lambda: values.append(once("c", create, context=context))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == ["cluster 1"] * 5


def test_a_value_that_is_asked_for_again_and_again_is_cleaned_up_once(task):
    context, cloud = task.context(), Cloud()
    for _ in range(3):
        once("c", cloud.create, cleanup=cloud.remove, context=context)
    task.end()
    assert len(cloud.removed) == 1


def remove_somewhere(value): ...


@pytest.mark.parametrize(
    ("cleanup", "kept"),
    [
        (None, None),
        (remove_somewhere, f"{__name__}:remove_somewhere"),
        (lambda value: None, "a function of the DAG file"),
        (Cloud().remove, "a function of the DAG file"),
    ],
)
def test_the_sweep_is_told_which_function_cleans_up(task, cleanup, kept):
    once("c", lambda: "x", cleanup=cleanup, context=task.context())
    assert task.data["resumable.once.c"]["cleanup"] == kept
    task.end()

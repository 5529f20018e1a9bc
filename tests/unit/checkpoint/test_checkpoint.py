"""`Checkpoint` and `once` as a task meets them: what they promise, what they say, what they keep."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
import time
from collections import Counter

import pytest

from resumable import Checkpoint, ItemsFailedError, RecordError, StateStoreError, host, once
from resumable.checkpoint.done import KeyList, coarsened, decoded, encoded, most_items, size
from resumable.checkpoint.setting import code_text
from resumable.stores.task_state import AfterUpgrade
from resumable.stores.variables import VariableStore
from tests.support.checkpointed import ITEMS, KEY, Cloud, Task, WorkError, amap, stopped_task, task, until, variables  # noqa: F401
from tests.support.names import STOPPED, AirflowFailException, AirflowRescheduleException, get_current_context
from tests.support.runner import Effects, StateStoreDouble

# ruff: noqa: F811 - fixtures are arguments


def test_a_retry_goes_on_with_the_item_that_failed(task):
    task.stopped(ITEMS, 42)
    assert task.run(ITEMS) == ITEMS[42:]
    assert task.run(ITEMS) == []


def test_a_reordered_list_is_the_same_work(task):
    task.stopped(ITEMS, 42)
    shuffled = random.Random(1).sample(ITEMS, len(ITEMS))
    assert sorted(task.run(shuffled)) == ITEMS[42:]


def test_added_items_are_worked_and_removed_ones_are_not_missed(task):
    task.stopped(ITEMS, 42)
    edited = ["new0", *ITEMS[:10], "new1", *ITEMS[20:], "new2"]
    assert task.run(edited) == ["new0", "new1", *ITEMS[42:], "new2"]


def test_writes_are_few_and_never_one_per_item(task):
    context = task.context()
    store = context["task_state_store"]
    with Checkpoint("files", context=context, every=25) as checkpoint:
        assert sum(1 for _ in checkpoint.items(ITEMS)) == 100
    assert store._effects.done.count("store.set") == 1 + 1 + 4 + 1  # the list, the beginning, 4 intervals, the end
    assert store._effects.done.count("store.get") == 1


def test_what_is_kept_shows_the_numbers(task):
    task.stopped(ITEMS, 42)
    kept = task.data[KEY]
    assert (kept["version"], kept["state"], kept["done"], kept["total"], kept["ranges"]) == (1, "running", 42, 100, "0-41")
    assert {"per_second", "remaining_seconds", "written_at", "try"} <= set(kept)


def test_after_a_clear_an_unfinished_checkpoint_goes_on_and_a_finished_one_starts_over(task):
    task.stopped(ITEMS, 42)
    task.clear()
    assert task.run(ITEMS) == ITEMS[42:]
    task.clear()
    assert task.run(ITEMS) == ITEMS


def test_a_policy_of_its_own_decides_what_a_clear_does(task):
    task.stopped(ITEMS, 42)
    task.clear()
    assert task.run(ITEMS, resume_policy={"on_clear": "restart"}) == ITEMS
    task.clear()
    assert task.run(ITEMS, resume_policy={"on_clear": "reattach"}) == []


def test_a_siblings_clear_does_not_start_over_what_is_under_way(task):
    task.stopped(ITEMS, 42)
    task.clears += 1
    assert task.run(ITEMS) == ITEMS[42:]


def edited():
    return 1


@pytest.mark.parametrize("change", ["code", "spec"])
def test_a_change_starts_over_goes_on_or_fails_by_policy(task, change):
    def then(policy):
        again = Task()
        again.stopped(ITEMS, 42)
        again.code = edited if change == "code" else again.code
        return again.run(ITEMS, spec="v2" if change == "spec" else None, resume_policy={"on_change": policy})

    assert then("restart") == ITEMS
    assert then("reattach") == ITEMS[42:]
    with pytest.raises(AirflowFailException, match="on_change=fail"):
        then("fail")


def test_a_comment_or_a_decorator_is_no_change_of_the_code():
    def first():
        return 1

    one = code_text(first)

    def first():
        # why
        return 1

    assert code_text(first) == one != code_text(edited)


def test_damaged_and_newer_state_is_an_error_and_never_starts_over(task):
    task.stopped(ITEMS, 42)
    kept = task.data[KEY]
    for wrong in ({"version": 2}, {"version": None}, {"ranges": "5-500"}, {"ranges": "x"}, {"generation": 1}, {"items": "gone"}):
        task.data[KEY] = {**kept, **wrong}
        with pytest.raises(RecordError, match="resumable.checkpoint.files"):
            task.run(ITEMS)
    task.data[KEY] = "nonsense"
    with pytest.raises(RecordError):
        task.run(ITEMS)


def test_a_store_that_is_down_at_the_start_does_nothing_and_meanwhile_stops_nothing(task, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    task.down = True
    with pytest.raises(StateStoreError):
        task.run(ITEMS)
    task.down = False
    worked = []
    with task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS):
            task.down = 20 < len(worked) < 60
            worked.append(item)
    assert worked == ITEMS
    assert task.data[KEY]["state"] == "done"


@pytest.mark.parametrize(
    ("items", "key", "words"),
    [
        ([1.5], None, "no key"),
        ([{"a": 1}], None, "Give key="),
        ([True], None, "no key"),
        (["a", "a"], None, "Two items have the key 'a'"),
        (["a", "b"], lambda _: "same", "Two items have the key"),
        ([("a", None)], None, "parts must be"),
    ],
)
def test_items_that_cannot_be_told_apart_are_an_error_before_any_work(task, items, key, words):
    with pytest.raises(AirflowFailException, match=words), task.checkpoint() as checkpoint:
        for _ in checkpoint.items(items, key=key):
            pytest.fail("worked")


def test_a_second_loop_and_a_loop_outside_of_the_block_are_errors(task):
    with pytest.raises(AirflowFailException, match="second"), task.checkpoint() as checkpoint:
        [str(item) for item in checkpoint.items([1])]
        [str(item) for item in checkpoint.items([1])]
    with pytest.raises(AirflowFailException, match="not open"):
        [item for item in Checkpoint("files").items([1])]


def test_outside_of_a_task_it_says_so():
    with pytest.raises(AirflowFailException, match="no running task"), Checkpoint("files"):
        pass


def test_failed_items_are_collected_and_alone_worked_again(task):
    with pytest.raises(ItemsFailedError, match="2 items.*98 are done"), task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item in ("f007", "f050"):
                checkpoint.fail(item, WorkError())
    assert task.data[KEY]["failed"] == 2
    assert task.run(ITEMS) == ["f007", "f050"]


def test_batches_are_done_as_a_whole(task):
    with pytest.raises(WorkError), task.checkpoint() as checkpoint:
        for number, batch in enumerate(checkpoint.batches(ITEMS, 30)):
            assert len(batch) == 30
            if number == 1:
                raise WorkError
    with task.checkpoint() as checkpoint:
        assert [len(batch) for batch in checkpoint.batches(ITEMS, 30)] == [30, 30, 10]


def test_pages_go_on_at_the_cursor_that_was_kept(task):
    asked = []

    def fetch(cursor):
        asked.append(cursor)
        return [cursor], (cursor or 0) + 1 if (cursor or 0) < 5 else None

    with pytest.raises(WorkError), task.checkpoint() as checkpoint:
        for page in checkpoint.pages(fetch):
            if page == [3]:
                raise WorkError
    with task.checkpoint() as checkpoint:
        assert [list(page) for page in checkpoint.pages(fetch)] == [[3], [4], [5]]
    with task.checkpoint() as checkpoint:
        assert [list(page) for page in checkpoint.pages(fetch)] == []
    assert asked == [None, 1, 2, 3, 3, 4, 5]


def test_what_the_target_has_committed_is_not_worked_again(task):
    target = {}

    def committed(token):
        return target.get(token, ())

    with pytest.raises(WorkError), task.checkpoint(every=1000, committed=committed) as checkpoint:
        for item in checkpoint.items(ITEMS):
            target.setdefault(checkpoint.token, []).append(item)
            if item == "f030":
                raise WorkError  # after the transaction, before the item counts as done
    assert task.run(ITEMS, committed=committed) == ITEMS[31:]
    task.clear()
    assert task.run(ITEMS, committed=committed) == ITEMS, "all was done, so a clear means all again, under another token"


# -- asynchronous -----------------------------------------------------------------------------------------------------


def test_map_works_every_item_once_and_no_more_at_a_time_than_told(task):
    worked, running, most = Counter(), 0, 0

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        worked[item] += 1
        running -= 1

    amap(task, work, concurrency=7)
    amap(task, work, concurrency=7)
    assert set(worked.values()) == {1}
    assert set(worked) == set(ITEMS)
    assert most == 7


def test_map_stops_at_a_failure_or_collects_and_only_what_is_left_is_worked_again(task):
    worked = Counter()
    broken = {"f020", "f060"}

    async def work(item):
        await asyncio.sleep(0)
        worked[item] += 1
        if item in broken:
            raise WorkError

    with pytest.raises(ItemsFailedError):
        amap(task, work, concurrency=3)
    assert len(worked) < 30
    with pytest.raises(ItemsFailedError, match="2 items"):
        amap(task, work, on_error="collect")
    broken.clear()
    amap(task, work)
    assert {item for item, times in worked.items() if times > 1} == {"f020", "f060"}
    assert set(worked) == set(ITEMS)


def test_async_for_records_after_the_body(task):
    async def run(stop):
        worked = []
        async with task.checkpoint() as checkpoint:
            async for item in checkpoint.items(ITEMS):
                if len(worked) == stop:
                    raise WorkError
                worked.append(item)
        return worked

    with pytest.raises(WorkError):
        asyncio.run(run(42))
    assert asyncio.run(run(None)) == ITEMS[42:]


def test_the_store_is_never_asked_in_the_loops_thread(task):
    context = task.context()
    threads = set()
    context["task_state_store"]._effects.listener = lambda _: threads.add(threading.current_thread())

    async def work(item): ...

    async def run():
        async with Checkpoint("files", context=context) as checkpoint:
            await checkpoint.map(work, ITEMS)

    asyncio.run(run())
    assert threads
    assert threading.main_thread() not in threads


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_flags_come_back_as_they_were(seed):
    draw = random.Random(seed)
    count = draw.choice([0, 1, 7, 8, 1000, 5000])
    flags = bytearray(draw.random() < draw.choice([0.01, 0.5, 0.99]) for _ in range(count))
    assert decoded(json.loads(json.dumps(encoded(flags))), count) == flags


def test_most_items_fit_whatever_the_pattern():
    limit = 20_000
    flags = bytearray(random.Random(1).randbytes(most_items(limit)).translate(bytes(n & 1 for n in range(256))))
    assert size(encoded(flags)) <= limit
    more = bytearray(random.Random(1).randbytes(2 * most_items(limit)).translate(bytes(n & 1 for n in range(256))))
    some = decoded(coarsened(more, limit), len(more))
    assert 0 < some.count(1) < more.count(1)
    assert all(one <= other for one, other in zip(some, more, strict=True))


def test_a_million_items_fit_into_64_kb():
    keys = KeyList(range(1_000_000), limit=64_000)
    assert len(json.dumps(keys.to_json())) < 65_535


def test_an_edit_of_a_long_list_forgets_its_neighbours_only():
    keys = [f"k{n:06}" for n in range(100_000)]
    kept = KeyList(keys, limit=64_000)
    edited = KeyList([*keys[:500], "k000499x", *keys[500:]], limit=64_000, mean=kept.mean)
    carried = edited.carried_over(kept.to_json(), bytearray(b"\1" * 100_000))
    assert 100_000 - 10 * kept.mean < carried.count(1) < 100_000
    assert carried[500] == 0


# -- once -------------------------------------------------------------------------------------------------------------


def test_once_gives_later_tries_the_first_value_and_cleans_up_at_the_end(task):
    cloud = Cloud()
    values = {once("c", cloud.create, cleanup=cloud.remove, context=task.context()) for _ in range(3)}
    assert (len(values), len(cloud.made), cloud.removed) == (1, 1, [])
    task.end()
    assert cloud.removed == list(values)
    once("c", cloud.create, cleanup=cloud.remove, context=task.context())
    assert len(cloud.removed) == 1


def test_a_clean_up_finds_the_tasks_context_as_create_did(task):
    seen = []
    once("c", lambda: "x", cleanup=lambda _: seen.append(get_current_context()), context=task.context())
    task.end()
    assert seen == [{}]


def test_once_repeats_a_creation_under_the_same_token(task):
    cloud = Cloud()
    cloud.dies = True
    with pytest.raises(WorkError):
        once("c", cloud.create, context=task.context())
    cloud.dies = False
    once("c", cloud.create, context=task.context())
    assert len(cloud.made) == 1


def test_after_a_clear_once_cleans_up_the_old_and_makes_a_new_one(task):
    cloud = Cloud()
    first = once("c", cloud.create, cleanup=cloud.remove, context=task.context())
    task.clear()
    assert once("c", cloud.create, cleanup=cloud.remove, context=task.context()) != first
    assert cloud.removed == [first]


def test_a_value_that_cannot_be_kept_is_cleaned_up(task):
    removed = []
    with pytest.raises(AirflowFailException, match="JSON cannot carry"):
        once("c", lambda: {1, 2}, cleanup=removed.append, context=task.context())
    assert removed == [{1, 2}]


# -- a store that nobody else cleans up: before Airflow 3.3 -----------------------------------------------------------


def test_a_task_that_has_succeeded_leaves_no_variable_of_a_checkpoint_or_of_once(task, variables):
    task.run(range(30))
    assert variables
    task.end()
    assert not variables
    for cleanup in (None, lambda _: None):
        once("c", lambda: "x", cleanup=cleanup, context=task.context())
        assert variables
        task.end()
        assert not variables


@pytest.mark.parametrize("state", ["up_for_retry", "queued", "running"])
def test_a_success_that_airflow_has_refused_forgets_nothing(state, task, variables):
    variables.state = state
    task.run(range(30))
    task.end()
    assert task.run(range(30)) == []
    once("c", lambda: "x", context=task.context())
    task.end()
    assert once("c", lambda: "y", context=task.context()) == "x"


def test_after_an_upgrade_checkpoints_and_once_go_on_where_the_older_airflow_left_them(task, variables, monkeypatch):
    task.stopped(range(30), after=12)
    once("c", lambda: "x", context=task.context())
    monkeypatch.undo()
    upgraded = lambda context: AfterUpgrade(
        StateStoreDouble(task.data, Effects(), lambda verb: False), VariableStore(host.task_identity(context), variables)
    )
    monkeypatch.setattr(host, "state_store", upgraded)
    assert task.run(range(30)) == list(range(12, 30))
    assert once("c", lambda: "y", context=task.context()) == "x"
    assert len(variables) <= 1  # the list of the keys, which nobody had to read


def test_a_clean_up_that_failed_is_not_forgotten(task, variables):
    once("c", lambda: "x", cleanup=lambda _: 1 / 0, context=task.context())
    task.end()
    assert len(variables) == 1


# -- SIGTERM ----------------------------------------------------------------------------------------------------------


def test_an_eviction_lets_the_item_end_writes_and_hands_the_task_back(stopped_task):
    task, worked = stopped_task, []
    with pytest.raises(AirflowRescheduleException), task.checkpoint(every=1000) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f030":
                signal.raise_signal(signal.SIGTERM)
                until(lambda: task.data[KEY]["done"] == 30)  # written at once, not at the end of the item
                until(lambda: checkpoint._block.is_stopping)
            worked.append(item)
    assert worked == ITEMS[:31]
    assert task.own_on_kill == []
    assert "on_kill" not in vars(task.operator)
    assert task.run(ITEMS) == ITEMS[31:]


def test_an_eviction_interrupts_an_item_that_takes_too_long_and_it_is_done_again(stopped_task):
    task = stopped_task
    with pytest.raises(AirflowRescheduleException), task.checkpoint(every=1000) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f030":
                signal.raise_signal(signal.SIGTERM)
                time.sleep(20)
                pytest.fail("not interrupted")
    assert task.own_on_kill == [1]
    assert task.run(ITEMS) == ITEMS[30:]


@pytest.mark.parametrize("slow", [False, True])
def test_an_eviction_of_a_coroutine_hands_the_task_back(stopped_task, slow):
    task, worked = stopped_task, []

    async def work(item):
        if item == "f030" and not worked.count("f030") and not task.own_on_kill:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(20 if slow else 0.1)
        await asyncio.sleep(0.001)
        worked.append(item)

    with pytest.raises(AirflowRescheduleException):
        amap(task, work, concurrency=3)
    assert len(worked) < 100
    amap(task, work, concurrency=3)
    assert Counter(worked) == Counter(ITEMS)


@pytest.mark.parametrize("state", ["failed", "success", "restarting", "up_for_retry"])
def test_a_stop_that_is_no_eviction_is_never_handed_back_and_calls_the_operators_on_kill(stopped_task, state):
    task = stopped_task
    task.state = state
    with pytest.raises(STOPPED), task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f030":
                signal.raise_signal(signal.SIGTERM)
                time.sleep(20)
                pytest.fail("not interrupted")
    assert task.own_on_kill == [1]


@pytest.mark.parametrize(("state", "removed"), [("failed", 1), ("restarting", 1), ("running", 0), ("up_for_retry", 0)])
def test_once_cleans_up_when_a_user_ends_the_task_and_not_on_an_eviction(stopped_task, state, removed):
    task, cloud, told = stopped_task, Cloud(), threading.Event()
    task.state = state
    once("c", cloud.create, cleanup=cloud.remove, context=task.context())
    task.operator.on_kill.__self__._members.append(lambda stop: told.set())
    signal.raise_signal(signal.SIGTERM)
    assert told.wait(20)
    assert len(cloud.removed) == removed
    task.operator.on_kill.__self__._members.pop()
    task.end("on_failure_callback")
    assert len(cloud.removed) == 1

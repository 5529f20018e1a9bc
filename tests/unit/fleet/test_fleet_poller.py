"""One poller for many who wait: how it asks, what each of them hears, and what is left when they have gone."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from resumable import host
from resumable.errors import RecordError
from resumable.fleet import registry
from resumable.fleet.asks import Absence, Job, pause
from resumable.fleet.budget import Rate
from resumable.fleet.lookups import Lookup
from resumable.fleet.measures import Measures
from resumable.fleet.poller import RENEWAL, Settings
from resumable.fleet.registry import Fleet
from resumable.fleet.schedule import Schedule
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle
from tests.support.many_jobs import LIST, MANY, ONE, Answer, Client, Judge, ManyJobs
from tests.support.simulated_time import EPOCH, Instant, SimulatedLoop, simulated

FAST = {operation: Rate(1000, 1000) for operation in (ONE, MANY, LIST)}


class Scene:
    """A loop, a service, a fleet and those who wait."""

    def __init__(self, loop: SimulatedLoop, *, latency: Callable[[], float] = lambda: 0.1, **settings: Any) -> None:
        self.loop = loop
        self.service = ManyJobs(loop.time)
        self.pools: list[Instant] = []
        self.metrics = Metrics()
        self.reached = 0
        self.reach_fails: list[Exception] = []
        self.waiting: dict[str, asyncio.Task[Observation]] = {}
        self.told: dict[str, list[str]] = {}
        self.noticed: dict[str, float] = {}
        rates = settings.pop("rates", FAST)

        def pool(size: int) -> Instant:
            self.pools.append(Instant(size, latency))
            return self.pools[-1]

        async def make() -> Fleet:
            made = Settings(pool=pool, wall=lambda: EPOCH + loop.time() - 1000.0, random=lambda: 0.5, **settings)
            return Fleet(made, rates=rates, measures=Measures(self.metrics))

        self.fleet = loop.run_until_complete(make())

    async def reach(self) -> Client:
        await asyncio.sleep(0.2)
        if self.reach_fails:
            raise self.reach_fails.pop(0)
        self.reached += 1
        return Client(self.service, self.reached)

    def wait(self, *names: str, lookup: Lookup | None = None, **target: Any) -> None:
        lookup, group = lookup or self.service.lookup(), target.pop("group", "")
        for name in names:
            if name not in self.service.words:
                self.service.run(name, group)
            told = self.told.setdefault(name, [])
            asked = self.service.target(name, lookup, reach=self.reach, **target)
            self.waiting[name] = self.loop.create_task(self._watch(name, asked, told))

    async def _watch(self, name: str, target: Any, told: list[str]) -> Observation:
        seen = await self.fleet.watch(target, told.append)
        self.noticed[name] = self.loop.time()
        return seen

    def seen(self, name: str) -> Observation:
        assert self.waiting[name].done()
        return self.waiting[name].result()

    def runs(self, *names: str) -> bool:
        return not any(self.waiting[name].done() for name in names)


class Metrics:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, float]] = []

    def incr(self, stat: str, count: int = 1, *, tags: dict[str, str]) -> None:
        self.sent.append(("incr", stat, count))

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        self.sent.append(("gauge", stat, value))

    def timing(self, stat: str, dt: float, *, tags: dict[str, str]) -> None:
        self.sent.append(("timing", stat, dt))


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    with simulated() as made:
        yield made


@pytest.fixture
def scene(loop: SimulatedLoop) -> Scene:
    return Scene(loop)


def names(count: int, prefix: str = "j") -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


# -- asking together --------------------------------------------------------------------------------------------------


def test_many_jobs_are_asked_about_with_few_calls_and_each_who_waits_hears_of_its_own(scene: Scene) -> None:
    scene.wait(*names(100))
    scene.loop.pass_time(300)
    assert scene.service.count(ONE) == 0
    assert 10 * 9 <= scene.service.count(MANY) <= 10 * 11
    scene.service.words["j7"] = "DONE"
    scene.service.words["j8"] = "BROKEN"
    scene.loop.pass_time(40)
    assert scene.seen("j7").state is JobState.SUCCEEDED
    assert scene.seen("j8").state is JobState.FAILED
    assert scene.runs(*(name for name in scene.waiting if name not in ("j7", "j8")))


def test_jobs_that_come_one_after_the_other_are_soon_asked_about_together(scene: Scene) -> None:
    for name in names(10):
        scene.wait(name)
        scene.loop.pass_time(2.9)
    scene.loop.pass_time(120)
    scene.service.sent.clear()
    scene.loop.pass_time(300)
    assert 9 <= scene.service.count() <= 12


def test_a_single_job_is_looked_at_as_its_operator_does(scene: Scene) -> None:
    scene.wait("j")
    scene.loop.pass_time(100)
    assert scene.service.count(MANY) == 0
    assert scene.service.count(ONE) == 4


def test_never_more_calls_than_one_by_one_would_take(loop: SimulatedLoop) -> None:
    for many, listing in ((True, False), (False, True), (True, True), (False, False)):
        for count in (1, 2, 3, 11):
            scene = Scene(loop)
            scene.wait(*names(count), lookup=scene.service.lookup(by_id=many, listing=listing))
            for other in range(7):
                scene.service.run(f"other{other}")
            loop.pass_time(600)
            for name in names(count):
                scene.service.words[name] = "DONE"
            loop.pass_time(40)
            looks = count * (1 + (600 + 40) // 28)
            assert scene.service.count() <= looks, (many, listing, count, scene.service.count(), looks)
            assert len(scene.noticed) == count


def test_jobs_of_different_groups_are_never_in_one_call(scene: Scene) -> None:
    scene.wait(*names(5, "a"), group="a")
    scene.wait(*names(5, "b"), group="b")
    scene.loop.pass_time(100)
    assert scene.service.count(MANY) == 8
    assert scene.service.count(ONE) == 0


def test_those_who_wait_for_the_same_job_hear_the_same_and_ask_once(scene: Scene) -> None:
    scene.service.run("j")
    lookup = scene.service.lookup()
    both = [
        scene.loop.create_task(scene.fleet.watch(scene.service.target("j", lookup, reach=scene.reach), print)) for _ in range(2)
    ]
    scene.loop.pass_time(100)
    assert scene.service.count() == 4
    scene.service.words["j"] = "DONE"
    scene.loop.pass_time(40)
    assert [task.result().state for task in both] == [JobState.SUCCEEDED] * 2


def test_a_failing_job_wakes_whoever_waits(scene: Scene) -> None:
    scene.wait("j", "k")
    scene.service.words["j"] = "HALF"
    scene.loop.pass_time(40)
    assert scene.seen("j").state is JobState.FAILING


def test_a_word_that_nobody_knows_is_no_end(scene: Scene) -> None:
    scene.wait("j", "k")
    scene.service.words["j"] = scene.service.words["k"] = "ZOMBIE"
    scene.loop.pass_time(3600)
    assert scene.runs("j", "k")
    scene.service.words["j"] = "DONE"
    scene.loop.pass_time(90)
    assert scene.seen("j").state is JobState.SUCCEEDED


# -- intervals --------------------------------------------------------------------------------------------------------


def test_the_interval_is_the_operators_and_grows_with_the_age_to_a_minute_and_a_longer_one_stays() -> None:
    assert pause(10, 5) == 10
    assert pause(10, 400) == 20
    assert pause(10, 20 * 60) == 60
    assert pause(10, 1e6) == 60
    assert pause(300, 5) == pause(300, 1e6) == 300


def test_no_end_is_noticed_later_than_the_interval_and_a_call(scene: Scene) -> None:
    for count, lookup in ((30, scene.service.lookup()), (5, scene.service.lookup(by_id=False))):
        own, begun = names(count, f"{count}-"), scene.loop.time()
        scene.wait(*own, lookup=lookup, age=0.0)
        for name in own:
            scene.loop.pass_time(7)
            ended = scene.loop.time()
            scene.service.words[name] = "DONE"
            longest = max(30, (scene.loop.time() - begun + 40) / 20) * 1.05 + 1
            scene.loop.pass_time(longest + 1)
            assert scene.noticed[name] - ended <= longest


# -- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_is_read_where_that_takes_fewer_calls_and_ends_are_confirmed_by_a_single_look(scene: Scene) -> None:
    lookup = scene.service.lookup(by_id=False, listing=True)
    scene.wait(*names(50), lookup=lookup)
    for other in names(12, "other"):
        scene.service.run(other)
    scene.loop.pass_time(300)
    assert scene.service.count(ONE) == 0
    assert 13 * 9 <= scene.service.count(LIST) <= 13 * 11
    scene.service.words["j3"] = "DONE"
    scene.loop.pass_time(40)
    assert scene.seen("j3").state is JobState.SUCCEEDED
    assert scene.service.count(ONE) == 1


def test_a_list_full_of_other_peoples_jobs_is_given_up_soon_and_what_it_cost_is_saved_again(loop: SimulatedLoop) -> None:
    counts = []
    for listing in (True, False):
        scene = Scene(loop)
        scene.wait(*names(40), lookup=scene.service.lookup(by_id=False, listing=listing))
        for other in range(1000):
            scene.service.run(f"other{other}")
        loop.pass_time(4 * 3600)
        assert scene.runs(*names(40))
        assert scene.service.count(LIST) <= 10 * 6
        counts.append(scene.service.count())
    assert counts[0] <= counts[1] + 40, "but for one round that is under way"


def test_a_job_that_the_list_does_not_show_is_asked_about_alone_and_is_no_end(scene: Scene) -> None:
    scene.wait(*names(20), lookup=scene.service.lookup(by_id=False, listing=True))
    scene.service.unlisted.add("j5")
    scene.loop.pass_time(300)
    assert scene.runs("j5")
    assert {sent.ids for sent in scene.service.sent if sent.operation == ONE} == {("j5",)}
    scene.service.words["j5"] = "DONE"
    scene.loop.pass_time(40)
    assert scene.seen("j5").state is JobState.SUCCEEDED


def test_an_error_in_the_middle_of_a_list_is_heard_by_none_of_those_that_it_had_shown(scene: Scene) -> None:
    scene.wait(*names(20), lookup=scene.service.lookup(by_id=False, listing=True))
    fails = iter([False, False, True] + [False] * 1000)
    called = scene.service.called

    def fail_on_page_three(operation: str, ids: Any, client: int = 0) -> None:
        called(operation, ids, client)
        if operation == LIST and next(fails):
            raise Answer("InternalFailure", 500)

    scene.service.called = fail_on_page_three  # type: ignore[method-assign]
    scene.loop.pass_time(100)
    assert scene.runs(*names(20))
    assert all(told == [] for told in scene.told.values())


# -- what goes wrong stays where it does ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Answer("InvalidParameter", 400), Answer("InternalFailure", 500)], ids=["refused", "broken"])
def test_an_id_that_spoils_a_call_is_split_off_and_asked_alone(scene: Scene, error: Exception) -> None:
    scene.wait(*names(20))
    scene.service.poison, scene.service.poison_error = {"j13"}, error
    scene.loop.pass_time(900)
    scene.service.sent.clear()
    scene.loop.pass_time(300)
    together = [sent.ids for sent in scene.service.sent if sent.operation == MANY]
    assert not any("j13" in ids for ids in together)
    assert {sent.ids for sent in scene.service.sent if sent.operation == ONE} <= {("j13",), *((name,) for name in names(20))}
    assert scene.service.count(ONE) <= 3 * 11
    assert scene.runs(*names(20))
    scene.service.words["j13"] = scene.service.words["j2"] = "DONE"
    scene.loop.pass_time(70)
    assert scene.seen("j13").state is scene.seen("j2").state is JobState.SUCCEEDED


def test_the_others_of_a_spoilt_call_are_seen_in_time(scene: Scene) -> None:
    scene.service.poison = {"j3"}
    scene.wait(*names(10))
    scene.service.words["j8"] = "DONE"
    scene.loop.pass_time(3)
    assert scene.seen("j8").state is JobState.SUCCEEDED


def test_a_call_about_many_that_is_denied_falls_back_to_single_looks_with_one_line(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.service.denied = {MANY}
    scene.wait(*names(12))
    scene.wait(*names(12, "b"), group="b")
    with caplog.at_level(logging.WARNING, "resumable.fleet"):
        scene.loop.pass_time(300)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert MANY in lines[0]
    assert "allow it" in lines[0]
    assert scene.service.count(MANY) <= 4, "no more than were under way when the first was denied"
    assert scene.service.count(ONE) >= 24 * 9
    scene.service.words["j3"] = "DONE"
    scene.loop.pass_time(40)
    assert scene.seen("j3").state is JobState.SUCCEEDED


def test_a_list_that_is_denied_falls_back_as_well(scene: Scene) -> None:
    scene.service.denied = {LIST}
    scene.wait(*names(12), lookup=scene.service.lookup(listing=True, by_id=True))
    scene.loop.pass_time(300)
    assert scene.service.count(LIST) == 0 or scene.service.count(LIST) == 1
    assert scene.service.count(MANY) >= 2 * 9
    assert scene.service.count(ONE) == 0


def test_the_error_of_one_job_is_heard_by_those_alone_who_wait_for_it(scene: Scene) -> None:
    scene.service.broken["j1"] = Answer("InternalFailure", 500)
    scene.wait(*names(3), lookup=scene.service.lookup(by_id=False))
    scene.loop.pass_time(600)
    assert scene.runs(*names(3))
    assert scene.told["j0"] == scene.told["j2"] == []
    assert len(scene.told["j1"]) == 1
    assert "InternalFailure" in scene.told["j1"][0]


def test_a_record_that_holds_no_id_wakes_its_own_task_alone(scene: Scene) -> None:
    scene.service.broken["j1"] = RecordError("no id")
    scene.wait(*names(3), lookup=scene.service.lookup(by_id=False))
    scene.loop.pass_time(40)
    assert scene.seen("j1") == Observation(JobState.UNKNOWN, "no id")
    assert scene.runs("j0", "j2")


def test_a_slow_call_holds_nobody_else_up(loop: SimulatedLoop) -> None:
    latencies = iter([500.0] + [0.1] * 10_000)
    scene = Scene(loop, latency=lambda: next(latencies))
    scene.wait(*names(40))
    loop.pass_time(10)
    ended = [name for name in names(40) if name not in scene.service.sent[0].ids]
    for name in ended:
        scene.service.words[name] = "DONE"
    loop.pass_time(40)
    assert all(scene.seen(name).state is JobState.SUCCEEDED for name in ended)


def test_no_more_calls_at_once_than_there_are_threads(loop: SimulatedLoop) -> None:
    scene = Scene(loop, latency=lambda: 5.0, at_once=3)
    scene.wait(*names(200))
    loop.pass_time(100)
    assert scene.pools[0].most == 3


# -- throttling -------------------------------------------------------------------------------------------------------


def test_the_budget_is_never_exceeded_and_the_jobs_share_what_there_is(loop: SimulatedLoop) -> None:
    scene = Scene(loop, rates={ONE: Rate(0.5, 4), MANY: Rate(0.2, 4)})
    scene.service.limits = {MANY: Rate(0.2, 4), ONE: Rate(0.5, 4)}
    scene.wait(*names(200))
    loop.pass_time(600)
    assert scene.service.count(MANY) <= 4 + 0.2 * 600
    assert all(sent.is_answered for sent in scene.service.sent)
    asked = {name for sent in scene.service.sent if sent.at > loop.time() - 120 for name in sent.ids}
    assert asked == set(names(200))


def test_single_looks_and_calls_about_many_do_not_wait_for_each_others_budget(loop: SimulatedLoop) -> None:
    scene = Scene(loop, rates={ONE: Rate(0.01, 1), MANY: Rate(100, 100)})
    for name in names(5, "single"):
        scene.wait(name, group=name)
    scene.wait(*names(20))
    loop.pass_time(100)
    assert scene.service.count(MANY) >= 2 * 3


def test_two_connections_of_one_account_share_its_budget(loop: SimulatedLoop) -> None:
    scene = Scene(loop, rates={MANY: Rate(0.1, 1)})
    scene.wait(*names(50), connection="one")
    scene.wait(*names(50, "k"), connection="two")
    loop.pass_time(600)
    assert len(scene.fleet) == 2
    assert scene.service.count(MANY) <= 1 + 0.1 * 600
    by_connection = [sum(1 for sent in scene.service.sent if sent.ids[0].startswith(prefix)) for prefix in "jk"]
    assert abs(by_connection[0] - by_connection[1]) <= 3


def test_throttling_is_given_way_to_and_recovered_from(scene: Scene) -> None:
    scene.wait(*names(100))
    scene.service.throttles = {MANY}
    scene.loop.pass_time(600)
    turns = scene.fleet.budgets.of(MANY, ("1", (("region", "here"),)))
    assert turns.budget.is_throttled
    assert scene.runs(*names(100))
    scene.service.throttles = set()
    scene.service.words["j1"] = "DONE"
    scene.loop.pass_time(120)
    assert scene.seen("j1").state is JobState.SUCCEEDED
    scene.loop.pass_time(300)
    assert not turns.budget.is_throttled


# -- gone -------------------------------------------------------------------------------------------------------------


def test_a_job_is_gone_only_after_three_single_answers_over_five_seconds(scene: Scene) -> None:
    scene.wait(*names(3))
    scene.loop.pass_time(40)
    scene.service.sent.clear()
    del scene.service.words["j1"]
    scene.loop.pass_time(60)
    assert scene.seen("j1").state is JobState.GONE
    alone = [sent.at for sent in scene.service.sent if sent.operation == ONE]
    assert len(alone) == 3
    assert alone[-1] - alone[0] >= 5
    assert scene.runs("j0", "j2")


def test_a_job_that_its_service_does_not_show_yet_is_not_gone(scene: Scene) -> None:
    for name in names(2):
        scene.service.run(name)
        scene.service.hidden[name] = scene.loop.time() + 250
    scene.wait(*names(2), age=0.0, visible_after=300.0)
    scene.loop.pass_time(240)
    assert scene.runs(*names(2))
    scene.service.words["j0"] = "DONE"
    scene.loop.pass_time(60)
    assert scene.seen("j0").state is JobState.SUCCEEDED
    assert scene.runs("j1")


def test_a_clock_ahead_of_ours_makes_no_job_wait_longer_to_be_gone(scene: Scene) -> None:
    scene.wait("j", age=-86400.0, visible_after=60.0)
    del scene.service.words["j"]
    scene.loop.pass_time(100)
    assert scene.seen("j").state is JobState.GONE


def test_an_answer_between_two_doubts_begins_the_count_anew(scene: Scene) -> None:
    scene.wait("j", "k")
    scene.loop.pass_time(3)
    for _ in range(20):
        scene.service.hidden["j"] = scene.loop.time() + 4.0
        scene.loop.pass_time(31)
        assert scene.runs("j")


# -- out of sight -----------------------------------------------------------------------------------------------------


def test_an_outage_is_told_once_to_each_who_waits_and_its_end_too(scene: Scene) -> None:
    scene.wait(*names(12))
    scene.loop.pass_time(100)
    scene.service.is_down = True
    scene.loop.pass_time(3600)
    assert scene.runs(*names(12))
    assert all(len(told) == 1 and "cannot be seen since 2023-11-14" in told[0] for told in scene.told.values())
    scene.service.is_down = False
    scene.service.words["j4"] = "DONE"
    scene.loop.pass_time(130)
    assert scene.seen("j4").state is JobState.SUCCEEDED
    assert all(len(scene.told[name]) == 2 and "seen again" in scene.told[name][1] for name in names(4))
    scene.service.sent.clear()
    scene.loop.pass_time(600)
    assert scene.service.count(ONE) + scene.service.count(MANY) <= 2 * 21


def test_a_job_out_of_sight_for_six_hours_wakes_its_task_and_says_since_when(scene: Scene) -> None:
    scene.wait("j", "k")
    scene.service.is_down = True
    scene.loop.pass_time(5.9 * 3600)
    assert scene.runs("j", "k")
    scene.loop.pass_time(0.2 * 3600)
    assert scene.seen("j").state is JobState.UNKNOWN
    assert scene.seen("j").detail.startswith("not seen since 2023-11-14")
    assert len(scene.fleet) == 0


def test_a_process_that_stood_still_has_not_lost_sight_of_a_job(scene: Scene) -> None:
    scene.wait("j")
    scene.loop.pass_time(100)
    scene.service.is_down = True
    scene.loop.now += 24 * 3600
    scene.loop.pass_time(60)
    scene.service.is_down = False
    scene.loop.pass_time(120)
    assert scene.runs("j")


# -- connections ------------------------------------------------------------------------------------------------------


def test_the_client_is_made_once_in_the_task_of_somebody_who_waits(scene: Scene) -> None:
    whose = contextvars.ContextVar("whose", default="nobody's")
    made_in: list[str] = []

    async def reach() -> Client:
        made_in.append(whose.get())
        return Client(scene.service)

    async def start() -> None:
        for name in names(50):
            whose.set(name)
            scene.service.run(name)
            scene.loop.create_task(scene.fleet.watch(scene.service.target(name, scene.service.lookup(), reach=reach), print))

    scene.loop.run_until_complete(start())
    scene.loop.pass_time(100)
    assert made_in == ["j0"]
    assert scene.service.count(MANY) == 5 * 4


def test_the_pollers_tasks_know_nothing_of_those_who_wait(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    whose = contextvars.ContextVar("whose", default="nobody's")
    seen_in: set[str] = set()
    run = Instant.run
    monkeypatch.setattr(Instant, "run", lambda self, call: seen_in.add(whose.get()) or run(self, call))

    async def start() -> None:
        whose.set("j0")
        scene.wait("j0", "j1")

    scene.loop.run_until_complete(start())
    scene.loop.pass_time(100)
    assert seen_in == {"nobody's"}


def test_when_the_one_that_makes_the_client_goes_another_makes_it(scene: Scene) -> None:
    scene.wait(*names(3))
    scene.loop.pass_time(0.1)
    scene.waiting["j0"].cancel()
    scene.loop.pass_time(40)
    assert scene.reached == 1
    assert scene.service.count() > 0
    assert scene.runs("j1", "j2")


def test_a_connection_that_cannot_be_made_keeps_the_tasks_waiting_and_is_tried_again(scene: Scene) -> None:
    scene.reach_fails = [LookupError("no such connection")] * 12
    scene.wait(*names(3))
    scene.loop.pass_time(400)
    assert scene.runs(*names(3))
    assert all(len(told) == 1 and "no such connection" in told[0] for told in scene.told.values())
    scene.loop.pass_time(600)
    assert scene.service.count() > 0
    assert all(len(told) == 2 for told in scene.told.values())


def test_a_connection_that_is_never_made_wakes_the_tasks_after_six_hours(scene: Scene) -> None:
    scene.reach_fails = [LookupError("no such connection")] * 10_000
    scene.wait(*names(3))
    scene.loop.pass_time(6.1 * 3600)
    assert {scene.seen(name).state for name in names(3)} == {JobState.UNKNOWN}
    assert len(scene.fleet) == 0


def test_expired_credentials_are_read_again_and_nobody_hears_of_it(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.wait(*names(30))
    scene.loop.pass_time(100)
    scene.service.expired = {1}
    with caplog.at_level(logging.WARNING, "resumable.fleet"):
        scene.loop.pass_time(100)
    assert scene.reached == 2
    assert sum("expired" in record.getMessage() for record in caplog.records) == 1
    assert all(told == [] for told in scene.told.values())
    scene.service.words["j1"] = "DONE"
    scene.loop.pass_time(40)
    assert scene.seen("j1").state is JobState.SUCCEEDED


def test_credentials_that_stay_expired_are_not_read_without_end(scene: Scene) -> None:
    scene.wait(*names(30))
    scene.service.expired = set(range(1000))
    scene.loop.pass_time(3600)
    assert scene.reached <= 1 + 2 * 3600 / RENEWAL  # for those about many, and those about one
    assert scene.runs(*names(30))


def test_credentials_that_were_put_right_later_are_read_again_and_the_tasks_go_on(scene: Scene) -> None:
    scene.wait(*names(30))
    scene.loop.pass_time(100)
    scene.service.expired = {1, 2, 3}
    scene.loop.pass_time(3 * RENEWAL)
    assert scene.reached == 4
    scene.service.words["j1"] = "DONE"
    scene.loop.pass_time(100)
    assert scene.seen("j1").state is JobState.SUCCEEDED
    assert scene.runs("j0", *names(30)[2:])


# -- what is next ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unlisted", [0, 1, 9, 17])
def test_what_is_found_to_be_next_is_what_is_taken_however_often_it_is_put_back(unlisted: int) -> None:
    """Else the poller would look for the next question for ever, without a pause, and hold the triggerer up."""
    service = ManyJobs(lambda: 0.0, size=5, page=6)
    schedule = Schedule(service.lookup(by_id=True, listing=True), lambda: 0.5)
    for n in range(18):
        handle = JobHandle("many", {"job": f"j{n}", "group": ""})
        job = Job(handle, Judge(service), 30.0, -60.0, Absence(0.0))
        job.misses = 2 if n == unlisted else 0
        schedule.enter(job, 1.0)
    for _ in range(10):
        wanted = schedule.next_operation(2.0, together=True)
        ask = schedule.take(2.0, together=True)
        assert ask is not None
        assert schedule.operation(ask) == wanted
        schedule.put_back(ask)


# -- coming and going -------------------------------------------------------------------------------------------------


def test_a_waiter_that_is_cancelled_leaves_the_others_and_nothing_of_itself(scene: Scene) -> None:
    scene.wait(*names(3))
    scene.loop.pass_time(40)
    scene.waiting["j1"].cancel()
    scene.loop.pass_time(1)
    scene.service.sent.clear()
    scene.loop.pass_time(60)
    assert not any("j1" in sent.ids for sent in scene.service.sent)
    assert scene.runs("j0", "j2")


def test_a_waiter_that_is_cancelled_while_its_job_is_asked_about_cancels_no_call(loop: SimulatedLoop) -> None:
    scene = Scene(loop, latency=lambda: 3.0)
    scene.wait(*names(5))
    loop.pass_time(2)
    assert scene.pools[0].under_way == 1
    scene.waiting["j1"].cancel()
    scene.service.words["j2"] = "DONE"
    loop.pass_time(40)
    assert scene.seen("j2").state is JobState.SUCCEEDED


def test_the_last_waiter_ends_the_poller_and_the_next_begins_another(scene: Scene) -> None:
    scene.wait(*names(3))
    scene.loop.pass_time(40)
    for name in names(3):
        scene.waiting[name].cancel()
    scene.loop.pass_time(1)
    assert len(scene.fleet) == 0
    assert scene.pools[0].is_closed
    assert asyncio.all_tasks(scene.loop) == set()
    scene.wait("j9")
    scene.loop.pass_time(40)
    assert scene.reached == 2
    assert len(scene.fleet) == 1


def test_a_job_that_is_waited_for_again_is_a_new_one(scene: Scene) -> None:
    scene.wait("j", "k")
    scene.loop.pass_time(1.15)
    scene.waiting["j"].cancel()
    scene.loop.pass_time(0.01)
    scene.wait("j")
    scene.service.words["j"] = "DONE"
    scene.loop.pass_time(40)
    assert scene.seen("j").state is JobState.SUCCEEDED


def test_one_fleet_for_each_event_loop() -> None:
    async def twice() -> bool:
        return registry.current_fleet() is registry.current_fleet()

    for _ in range(2):
        with simulated() as loop:
            assert loop.run_until_complete(twice())
    assert len(registry._fleets) <= 1


# -- seen from outside ------------------------------------------------------------------------------------------------


def test_a_busy_poller_has_a_line_a_minute_and_a_quiet_one_none(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "resumable.fleet"):
        scene.wait(*names(10))
        scene.loop.pass_time(600)
        assert [record.getMessage() for record in caplog.records] == []
        scene.wait(*names(190, "more"))
        scene.loop.pass_time(600)
    lines = [record.getMessage() for record in caplog.records]
    assert 8 <= len(lines) <= 10
    assert "many 1 here: 200 jobs, " in lines[5]
    assert "10.0 jobs a call, 0 throttled" in lines[5]


def test_metrics_tell_jobs_calls_jobs_per_call_throttling_and_lag(scene: Scene) -> None:
    scene.wait(*names(40))
    scene.loop.pass_time(200)
    scene.service.throttles = {MANY}
    scene.service.words["j1"] = "DONE"
    scene.loop.pass_time(60)
    scene.service.throttles = set()
    scene.loop.pass_time(100)
    sent = scene.metrics.sent
    assert ("gauge", "resumable_fleet.jobs", 40) in sent
    assert ("gauge", "resumable_fleet.jobs_per_call", 10) in sent
    assert sum(value for _, stat, value in sent if stat == "resumable_fleet.throttled") >= 1
    lags = [value for kind, stat, value in sent if stat == "resumable_fleet.notice_lag"]
    assert len(lags) == 1
    assert lags[0] <= 130_000
    for task in scene.waiting.values():
        task.cancel()
    scene.loop.pass_time(1)
    assert ("gauge", "resumable_fleet.jobs", 0) in sent
    calls = sum(value for kind, stat, value in sent if stat == "resumable_fleet.calls")
    assert calls == scene.service.count()


def test_airflows_metrics_take_what_is_sent() -> None:
    measures = Measures(host.stats())
    for now in (0.0, 61.0):
        measures.called("p", now, calls=1, watched=1)
        measures.throttled("p")
        measures.noticed("p", 1.0)
    measures.ended("p")
    for name in ("incr", "gauge", "timing"):
        assert callable(getattr(host.stats(), name))


def test_a_sink_that_fails_changes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("incr", "gauge", "timing"):
        monkeypatch.setattr(Metrics, name, lambda *args, **kwargs: 1 / 0)
    scene.wait(*names(5))
    scene.loop.pass_time(100)
    scene.service.words["j1"] = "DONE"
    scene.loop.pass_time(100)
    assert scene.seen("j1").state is JobState.SUCCEEDED


def test_each_operator_judges_its_own_job_by_the_client_of_all(scene: Scene) -> None:
    class WaitsForTheStart(Judge):
        def classify(self, word: str) -> JobState:
            return JobState.SUCCEEDED if word == "RUNNING" else super().classify(word)

    scene.wait(*names(3))
    target = scene.service.target(scene.service.run("s"), scene.service.lookup(), reach=scene.reach)
    target = replace(target, judge=WaitsForTheStart(scene.service))
    started = scene.loop.create_task(scene.fleet.watch(target, print))
    scene.loop.pass_time(40)
    assert started.result().state is JobState.SUCCEEDED
    assert scene.runs(*names(3))
    assert scene.reached == 1

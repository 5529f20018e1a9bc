"""What a soak does, drawn from a seed: which tasks there are, and what happens to each of them in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

SERVICES = ("databricks", "emr")
MODES = ("poll", "deferrable", "reschedule")
RESTARTS = ("api-server", "scheduler", "triggerer")
STALL = "a triggerer that stands still"
"""In the place of a restart: another triggerer takes its triggers over, then it goes on."""
KINDS = ("subclass", "retry_policy")
RESTART_SHARE = 0.15  # of the disruptions


@dataclass(frozen=True, order=True)
class Key:
    """One mapped task instance."""

    task_id: str
    index: int

    @property
    def service(self) -> str:
        return self.task_id.partition("_")[0]

    @property
    def mode(self) -> str:
        return self.task_id.partition("_")[2]

    def __str__(self) -> str:
        return f"{self.task_id}-{self.index:03}"

    def job_name(self, dag_id: str) -> str:
        """How its jobs are called at their service; no name is the beginning of another."""
        return f"{dag_id}.{self}"


@dataclass(frozen=True)
class Disruption:
    """
    Something that happens to a task.

    Attributes:
        what: SIGTERM (with SIGKILL after a grace period, as an eviction), SIGKILL, "clear", or "failed", "success", "skipped"
            for a user's mark. Of ordinary life: "job fails", or a part of it while the rest runs; "job fails unseen" and
            "job ends unseen", while no worker is there; "throttle", of some looks; "wrong 404", one answer that there is no such
            job; "edit", of the author, of the task's item.
        when: "answer" and "request": in the submit, whose answer or which itself is lost; "late": in the submit, which reaches
            the service after the worker's death; "wait": while the job runs; "report": the job is done, Airflow has not been
            told; "done": after success; "ended": after a user's mark.
    """

    what: str
    when: str

    def __str__(self) -> str:
        return f"{self.what} ({self.when})"

    @property
    def is_in_the_submit(self) -> bool:
        return self.when in ("answer", "request", "late")


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        tasks: the disruptions of each task, in order.
        restarts: a service and the number of disruptions of tasks after which it is restarted.
    """

    seed: int
    tasks: dict[Key, list[Disruption]]
    restarts: list[tuple[int, str]]
    kinds: dict[str, list[str]] = field(default_factory=dict)
    """What is particular about the tasks of a kind: ``subclass``, ``retry_policy``."""

    @property
    def size(self) -> int:
        return len(self.restarts) + sum(map(len, self.tasks.values()))

    @property
    def counts(self) -> dict[str, int]:
        """How often each task is mapped."""
        counts: dict[str, int] = {}
        for key in self.tasks:
            counts[key.task_id] = counts.get(key.task_id, 0) + 1
        return counts

    def __iter__(self) -> Iterator[tuple[str, Disruption]]:
        for key, disruptions in self.tasks.items():
            yield from ((str(key), disruption) for disruption in disruptions)


def make_plan(seed: int, tasks: int, disruptions: int, *, unheld: bool = False, ordinary: bool = False) -> Plan:
    """
    The same plan for the same arguments, on every machine.

    Args:
        unheld: also mark tasks that no process holds: those that wait for their next look.
        ordinary: also what needs no disaster: jobs that fail, or end while nobody looks, answers that lie, edits, operators of
            the author's own, retry policies, two triggerers of which one stands still.
    """
    draw = random.Random(seed)
    kinds = [f"{service}_{mode}" for mode in MODES for service in SERVICES]
    lives = {Key(kinds[n % len(kinds)], n // len(kinds)): _Life() for n in range(tasks)}
    restarts = (*RESTARTS, STALL) if ordinary else RESTARTS
    names = draw.sample(restarts, len(restarts))
    services = [names[n % len(names)] for n in range(max(1, round(RESTART_SHARE * disruptions)))]
    strikes = disruptions - len(services)
    for _ in range(strikes):
        key = draw.choice(list(lives))
        lives[key].draw(draw, key, unheld=unheld, ordinary=ordinary)
    draw.shuffle(services)
    moments = sorted(draw.sample(range(1, strikes), min(len(services), strikes - 1)))
    particular = {kind: [one for one in KINDS if draw.random() < 0.5] for kind in kinds} if ordinary else {}
    done = {key: life.disruptions for key, life in lives.items()}
    return Plan(seed, done, list(zip(moments, services, strict=False)), particular)


class _Life:
    """What has happened to a task so far, hence what can happen next."""

    def __init__(self) -> None:
        self.disruptions: list[Disruption] = []
        self.stage = "new"  # "new", "running", "ended" by a user, "reported" late

    def draw(self, draw: random.Random, key: Key, *, unheld: bool, ordinary: bool) -> None:
        possible = self._possible(key.mode, unheld=unheld)
        if ordinary and self.stage in ("new", "running"):
            possible += self._ordinary(key)
        chosen = draw.choice(possible)
        self.disruptions.append(chosen)
        if chosen.what == "clear":
            self.stage = "new"
        elif chosen.what in ("failed", "success", "skipped"):
            self.stage = "ended"
        else:
            self.stage = "reported" if chosen.when == "report" or chosen.what == "job ends unseen" else "running"

    def _possible(self, mode: str, *, unheld: bool) -> list[Disruption]:
        if self.stage == "ended":
            return [Disruption("clear", "ended")]
        clear_done = Disruption("clear", "done")
        if self.stage == "reported":
            return [clear_done]
        possible = [clear_done, Disruption("SIGKILL", "report"), *[Disruption("clear", "wait")] * 2]
        if mode != "reschedule" or unheld:  # between two looks no process is there to be told of a mark
            possible += [Disruption(state, "wait") for state in ("failed", "success", "skipped")] * 2
        if mode != "deferrable":  # a deferred task has no worker
            possible += [Disruption(what, "wait") for what in ("SIGTERM", "SIGKILL")] * 3
        if self.stage == "new":
            possible += [Disruption(what, when) for what in ("SIGTERM", "SIGKILL") for when in ("answer", "request", "late")]
        return possible

    def _ordinary(self, key: Key) -> list[Disruption]:
        names = ["job fails"] * 3 + ["throttle", "wrong 404"] * 2
        names += ["part of the job fails"] * 2 if key.service == "emr" else []
        names += ["job fails unseen", "job ends unseen", "edit"] * 2 if key.mode == "poll" else []
        return [Disruption(name, "wait") for name in names]


def slots_plan() -> Plan:
    """One task for each service and way to wait, and no disruption."""
    return Plan(0, {Key(f"{service}_{mode}", 0): [] for mode in MODES for service in SERVICES}, [])

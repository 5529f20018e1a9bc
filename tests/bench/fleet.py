"""
What waiting costs the account that is asked, with one poller for all: status calls, how late an end is noticed, the process.

    python -m tests.bench.fleet [--triggerers 2] [--process] [--triggers ours|theirs]

Simulated services with the published limits, in simulated time: 1,000 jobs of one account each (500 EMR steps on 10 clusters) in
every triggerer, an interval of 30 s (EMR: 60), a fifth of what lists show being somebody else's. A list shows what the other
triggerers wait for as well, so Databricks' is measured with 1,000 jobs in all of them together, too; "of jobs" is somebody else's
runs being of another type than ours. The way they are asked is the
real one: the functions of `resumable.fleet.services`, by the names of the real clients' methods. One by one, each would be
asked once in each interval: 1,000 calls.

``--process`` waits in real time with real threads, on a service that answers in 10 ms: 10,000 jobs beside 10,000 tasks that only
sleep; and 500 EMR steps with a real client of boto3, without the network. ``--triggers`` runs the triggers of 500 EMR steps on 10
clusters, ours or the provider's, as a triggerer begins with them, against a service of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from resumable.fleet.budget import Rate
from resumable.fleet.lookups import Lookup
from resumable.fleet.poller import Settings
from resumable.fleet.registry import Fleet
from resumable.fleet.services import aws, databricks
from resumable.fleet.waiting import Target
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle
from tests.support.many_jobs import Answer
from tests.support.simulated_time import EPOCH, Instant, SimulatedLoop, simulated

WARM, MEASURED = 120.0, 420.0


@dataclass
class Service:
    """A service that counts its calls and enforces its limits. ``words`` has the jobs in the order of their submits."""

    clock: Callable[[], float]
    limits: dict[str, Rate]
    words: dict[Any, str] = field(default_factory=dict)
    places: dict[Any, str] = field(default_factory=dict)
    types: dict[Any, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def called(self, operation: str) -> None:
        self.calls[operation] += 1
        limit = self.limits.get(operation)
        if limit is None:
            return
        calls, at = self._buckets.get(operation, (limit.burst, self.clock()))
        calls = min(limit.burst, calls + (self.clock() - at) * limit.per_second)
        is_within = calls >= 1
        self._buckets[operation] = (calls - is_within, self.clock())
        if not is_within:
            self.throttled[operation] += 1
            raise Answer("ThrottlingException", 400, "Rate exceeded")

    @property
    def conn(self) -> Service:
        """It is its own hook."""
        return self

    # -- the clients' methods -----------------------------------------------------------------------------------------

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        self.called("batch:DescribeJobs")
        return {"jobs": [{"jobId": job, "status": self.words[job]} for job in jobs]}

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:
        self.called("ecs:DescribeTasks")
        return {"tasks": [{"taskArn": task, "lastStatus": self.words[task]} for task in tasks]}

    def batch_get_query_execution(self, QueryExecutionIds: list[str]) -> dict[str, Any]:
        self.called("athena:BatchGetQueryExecution")
        found = [{"QueryExecutionId": one, "Status": {"State": self.words[one]}} for one in QueryExecutionIds]
        return {"QueryExecutions": found}

    def _do_api_call(self, endpoint: Any, asked: dict[str, Any]) -> dict[str, Any]:
        self.called("databricks:runs/list")
        start = int(asked.get("page_token", 0))
        runs = [run for run in reversed(self.words) if self.words[run] == "RUNNING" and self.types[run] == asked["run_type"]]
        following = {"next_page_token": start + 25} if start + 25 < len(runs) else {}
        page = [{"run_id": run, "state": {"life_cycle_state": "RUNNING"}} for run in runs[start : start + 25]]
        return {"runs": page, **following}

    def list_steps(
        self,
        ClusterId: str,
        StepIds: tuple[str, ...] = (),
        StepStates: tuple[str, ...] = (),
        Marker: str = "0",
    ) -> dict[str, Any]:
        self.called("emr:ListSteps")
        if StepIds:
            return {"Steps": [self._step(step) for step in StepIds]}
        steps = [step for step, word in self.words.items() if word in StepStates and self.places[step] == ClusterId]
        start = int(Marker)
        following = {"Marker": str(start + 50)} if start + 50 < len(steps) else {}
        return {"Steps": [self._step(step) for step in steps[start : start + 50]], **following}

    def _step(self, step: str) -> dict[str, Any]:
        return {"Id": step, "Status": {"State": self.words[step]}}


@dataclass
class Reached:
    client: Any

    def is_expired(self, error: BaseException) -> bool:
        return False


@dataclass
class Judge:
    client: Service
    operation: str
    key: str

    def observe(self, client: Service, handle: JobHandle) -> Observation:
        self.client.called(self.operation)
        ids = handle.ids[self.key]
        word = self.client.words[ids[0] if isinstance(ids, list) else ids]
        return Observation(self.classify(word), word)

    def classify(self, word: str) -> JobState:
        return JobState.ACTIVE if word in ("RUNNING", "PENDING") else JobState.SUCCEEDED


@dataclass(frozen=True)
class Case:
    name: str
    lookup: Lookup
    key: str
    interval: float = 30.0
    jobs: int = 1000
    others: int = 0
    clusters: int = 1
    in_all: bool = False  # not in each triggerer
    theirs: str = "SUBMIT_RUN"  # the type of other people's runs; ours are SUBMIT_RUN
    takes: float = 1.0  # what is left of the published limits, somebody else taking the rest


CASES = [
    Case("Batch", aws.BATCH, "job"),
    Case("ECS", aws.ECS, "task"),
    Case("Athena", aws.ATHENA, "query"),
    Case("Athena, 1 % of its limits", aws.ATHENA, "query", takes=0.01),
    Case("Databricks runs", databricks.RUNS, "run_id", others=250),
    Case("Databricks, others' of jobs", databricks.RUNS, "run_id", others=250, theirs="JOB_RUN"),
    Case("Databricks, 1,000 in all", databricks.RUNS, "run_id", others=250, in_all=True),
    Case("EMR steps", aws.EMR_STEPS, "steps", interval=60.0, jobs=500, others=125, clusters=10),
    Case("EMR steps, nobody else's", aws.EMR_STEPS, "steps", interval=60.0, jobs=500, clusters=10),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--triggerers", type=int, default=1)
    parser.add_argument("--process", action="store_true")
    parser.add_argument("--triggers", choices=["ours", "theirs"])
    given = parser.parse_args()
    if given.triggers:
        _triggers(given.triggers, 500)
        return
    if given.process:
        for name in PROCESSES:
            alone = get_context("spawn").Process(target=_in_a_process, args=(name,))
            alone.start()
            alone.join()
        return
    print(f"{given.triggerers} triggerer(s); calls and jobs are those of one")
    print(f"{'':27}  jobs interval calls/interval  calls/s throttled late: median   95 %")
    for case in CASES:
        with simulated() as loop:
            _measure(loop, case, given.triggerers)


def _measure(loop: SimulatedLoop, case: Case, triggerers: int) -> None:
    published = case.lookup.rates.items()
    limits = {name: Rate(rate.per_second * case.takes, max(1.0, rate.burst * case.takes)) for name, rate in published}
    service, dice = Service(loop.time, limits), random.Random(1)
    ended: dict[Any, float] = {}
    late: list[float] = []
    waiting: list[asyncio.Task[None]] = []
    watched: list[Any] = []
    times = 1 if case.in_all else triggerers
    ours = [(n, True) for n in range(case.jobs * times)] + [(n, False) for n in range(case.others * times)]
    dice.shuffle(ours)

    async def watch(fleet: Fleet, job: Any, cluster: str) -> None:
        async def reach() -> Reached:
            return Reached(service)

        ids = {case.key: [job] if case.key == "steps" else job, "cluster": cluster}
        handle = JobHandle("x", ids, {"region": "here", "account": "1"})
        judge, now = Judge(service, case.lookup.operation, case.key), EPOCH + loop.time() - 1000.0
        await fleet.watch(Target(handle, case.lookup, judge, "c", reach, now, case.interval), lambda _: None)
        late.append(loop.time() - ended[job])

    async def begin() -> None:
        made = Settings(
            pool=lambda size: Instant(size, lambda: 0.1), wall=lambda: EPOCH + loop.time() - 1000.0, random=dice.random
        )
        fleets = [Fleet(made) for _ in range(triggerers)]
        for n, is_ours in ours:
            job: Any = n if is_ours else -n - 1
            job = job if case.key == "run_id" else f"job-{job}"
            service.words[job], service.places[job] = "RUNNING", f"j-{n % case.clusters}"
            service.types[job] = "SUBMIT_RUN" if is_ours else case.theirs
            if is_ours:
                watched.append(job)
                waiting.append(loop.create_task(watch(fleets[n % triggerers], job, service.places[job])))

    loop.run_until_complete(begin())
    loop.pass_time(WARM)
    service.calls.clear()
    service.throttled.clear()
    loop.pass_time(MEASURED)
    calls, throttled = sum(service.calls.values()) / triggerers, sum(service.throttled.values())
    for job in dice.sample(watched, 60):
        service.words[job], ended[job] = "COMPLETED" if case.key == "steps" else "SUCCEEDED", loop.time()
        loop.pass_time(2.0)
    loop.pass_time(240.0)
    cuts = statistics.quantiles(late, n=20)
    print(
        f"{case.name:27} {case.jobs * times // triggerers:5} {case.interval:8.0f} "
        f"{calls * case.interval / MEASURED:14.1f} {calls / MEASURED:8.2f} "
        f"{throttled:9} {statistics.median(late):10.0f} s {cuts[18]:4.0f} s",
        flush=True,
    )
    for task in waiting:
        task.cancel()
    loop.pass_time(1.0)


# -- the process -------------------------------------------------------------------------------------------------------


async def _process(name: str, begin: Callable[[], list[asyncio.Task[Any]]]) -> None:
    held = [0.0, 0.0]  # by the clock, and of that what this process may have worked meanwhile: others have the machine as well

    async def beat() -> None:
        last, worked = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(0.01)
            late, own = time.monotonic() - last - 0.01, time.process_time() - worked
            held[0], held[1] = max(held[0], late), max(held[1], min(late, own))
            last, worked = time.monotonic(), time.process_time()

    heart = asyncio.ensure_future(beat())
    cpu, at_first = time.process_time(), _memory()
    tasks = begin()
    await asyncio.sleep(30.0)
    begun, at_begin = time.process_time() - cpu, list(held)
    held[:], cpu = [0.0, 0.0], time.process_time()
    await asyncio.sleep(60.0)
    spent = time.process_time() - cpu
    print(
        f"{name:30} first 30 s: {begun:5.2f} s of CPU, held up {at_begin[0]:4.2f} s at most ({at_begin[1]:4.2f} by itself); then "
        f"{spent / 60:5.3f} of a core, held up {held[0]:4.2f} s ({held[1]:4.2f}); {_memory():4.0f} MB, {at_first:4.0f} before",
        flush=True,
    )
    heart.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _memory() -> float:
    """The most that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _serve_emr(count: int, talk: Connection) -> None:
    """In a process of its own: EMR with ``count`` steps on 10 clusters. It tells how often it was asked for their states."""
    import boto3

    from tests.services import EmrService

    with EmrService() as service:
        os.environ.update(service.env())
        client = boto3.client("emr")
        jar = {"Jar": "command-runner.jar", "Args": ["spark-submit"]}
        step = {"Name": "load", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}
        jobs = []
        for cluster in [service.create_cluster() for _ in range(10)]:
            for _ in range(count // 100):
                ids = client.add_job_flow_steps(JobFlowId=cluster, Steps=[step] * 10)["StepIds"]
                jobs += [(cluster, one) for one in ids]
        talk.send((service.env(), jobs))
        while talk.recv():
            talk.send(sum(service.count(name) for name in ("ListSteps", "DescribeStep")))


def _triggers(whose: str, count: int) -> None:
    """The triggers themselves, each in a task as the triggerer has it; ours are of the fleet. The service is another process."""
    from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger

    from resumable.fleet.trigger import JobTrigger

    talk, theirs = Pipe()
    serving = get_context("spawn").Process(target=_serve_emr, args=(count, theirs), daemon=True)
    serving.start()
    service, jobs = talk.recv()
    os.environ.update({**service, "AIRFLOW__RESUMABLE__FLEET_SHARE": "0.4"})

    def trigger(cluster: str, one: str) -> Any:
        if whose == "theirs":
            return EmrAddStepsTrigger(
                job_flow_id=cluster, step_ids=[one], aws_conn_id=None, waiter_delay=60, waiter_max_attempts=600
            )
        return JobTrigger(
            job={"service": "emr", "ids": {"cluster": cluster, "steps": [one]}, "place": {"region": "us-east-1"}},
            reach={"operator": "resumable.operators.emr:ResumableEmrAddStepsOperator", "region_name": "us-east-1"},
            submitted_at=time.time(),
            interval=60.0,
        )

    async def run(one: Any) -> None:
        async for _ in one.run():
            pass

    def begin() -> list[asyncio.Task[Any]]:
        return [asyncio.ensure_future(run(trigger(*job))) for job in jobs]

    def asked() -> Any:
        talk.send(True)
        return talk.recv()

    before = asked()
    asyncio.run(_process(f"{count} EMR triggers, {whose}", begin))
    print(f"{'':30} {asked() - before} status calls in 90 s")
    talk.send(False)
    serving.join()


def _in_a_process(name: str) -> None:
    work, count = PROCESSES[name]
    asyncio.run(work(count))


async def _sleepers(count: int) -> None:
    async def sleep() -> None:
        while True:
            await asyncio.sleep(30.0)

    await _process(f"{count} that sleep", lambda: [asyncio.ensure_future(sleep()) for _ in range(count)])


async def _waiters(count: int) -> None:
    loop = asyncio.get_running_loop()
    fleet = Fleet()

    class Slow(Service):
        def called(self, operation: str) -> None:
            time.sleep(0.01)
            super().called(operation)

    service = Slow(loop.time, {})

    async def reach() -> Reached:
        return Reached(service)

    def begin() -> list[asyncio.Task[Any]]:
        tasks = []
        for n in range(count):
            service.words[f"job-{n}"] = "RUNNING"
            handle = JobHandle("batch", {"job": f"job-{n}"}, {"region": "here", "account": "1"})
            judge = Judge(service, "batch:DescribeJobs", "job")
            target = Target(handle, aws.BATCH, judge, "c", reach, time.time(), 30.0)
            tasks.append(asyncio.ensure_future(fleet.watch(target, print)))
        return tasks

    await _process(f"{count} that wait for a job", begin)
    print(f"{'':30} {service.calls['batch:DescribeJobs']} status calls in 90 s")


async def _emr_steps(count: int) -> None:
    """With a real client, all of it but the network."""
    fleet, service = Fleet(), Service(asyncio.get_running_loop().time, {})

    def answer(params: dict[str, Any], model: Any, **_: Any) -> Any:
        asked = json.loads(params["body"])
        return type("Answer", (), {"status_code": 200}), service.list_steps(**asked)

    def make() -> Reached:
        import boto3

        client = boto3.client("emr", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.meta.events.register("before-call.emr.ListSteps", answer)
        return Reached(SimpleNamespace(conn=client))

    async def reach() -> Reached:
        return await asyncio.to_thread(make)

    def begin() -> list[asyncio.Task[Any]]:
        tasks = []
        for n in range(count):
            service.words[f"s-{n}"], service.places[f"s-{n}"] = "RUNNING", f"j-{n % 10}"
            handle = JobHandle("emr", {"cluster": f"j-{n % 10}", "steps": [f"s-{n}"]}, {"region": "here", "account": "1"})
            judge = Judge(service, "emr:ListSteps", "steps")
            target = Target(handle, aws.EMR_STEPS, judge, "c", reach, time.time(), 60.0)
            tasks.append(asyncio.ensure_future(fleet.watch(target, print)))
        return tasks

    await _process(f"{count} EMR steps, boto3", begin)
    print(f"{'':30} {service.calls['emr:ListSteps']} status calls in 90 s")


PROCESSES = {"sleep": (_sleepers, 10_000), "wait": (_waiters, 10_000), "EMR": (_emr_steps, 500)}
"""Each in a process of its own: its memory is its own then."""

if __name__ == "__main__":
    main()

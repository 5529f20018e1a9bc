"""
Interrupts a task at random instants, each in a process of its own: no deadlock, no lost stop, no answer that
belongs to another question, and all settled within the five seconds between Airflow's SIGTERM and SIGKILL.

The task's side is the real thing: Airflow's `CommsDecoder` over a socket, its task state store, Variables,
XComs and signal handler, HTTP. The other side is played by this process: a supervisor that takes its time,
and a job service. Processes are forked from a server that has imported everything; 200 cases take a minute.

    INTERRUPT_SEED=7 INTERRUPT_CASES=1000 python -m pytest -s tests/crash/test_interrupts.py
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import msgspec
import pytest
from airflow.sdk import BaseOperator, Variable
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, supervisor, task_runner  # noqa: F401 - Variable.get imports it
from airflow.sdk.execution_time.context import TaskStateStoreAccessor
from pydantic import TypeAdapter

from resumable import ResumableMixin, host
from resumable.jobs import ending
from resumable.jobs.operator import DurableTask
from resumable.jobs.run import JobRun
from resumable.stop import sigterm as interruption
from resumable.stop.sigterm import Interrupted, Interruption, Stop

SEED = int(os.environ.get("INTERRUPT_SEED", "20260"))  # every draw comes from it; when a thread runs does not
CASES = int(os.environ.get("INTERRUPT_CASES", "240"))
AT_ONCE = 12

SIGKILL_AFTER = 5.0
LINGER = 0.4
START = 60.0

STATES = ("running", "running", "failed", "success", "skipped", "restarting", "up_for_retry")
BY_USER = ("failed", "success", "skipped")
GIVEN_UP = ("restarting", "up_for_retry")
"""Airflow has given the task instance another id: the server knows the old one no more."""

MOMENTS = ("begin", "submit", "request", "wait")

SLOW_SHARE = 0.06
"""Of the cases, those whose submit is answered so late that a user's stop has little time left."""

DAG, RUN, TASK = "etl", "manual__1", "train"

TO_TASK: TypeAdapter[Any] = TypeAdapter(comms.ToTask)
TO_SUPERVISOR: TypeAdapter[Any] = TypeAdapter(comms.ToSupervisor)


@dataclass(frozen=True)
class Case:
    """
    One interruption.

    Args:
        moment: what the signal waits for, before it waits for a random time.
        swallows: Interrupted exceptions that the operator's ``except BaseException`` swallows.
        twice: a second SIGTERM follows.
        crowded: a thread of the operator's own asks the supervisor, too.
        flaw: the safeguard that is taken away (`FLAWS`).
    """

    number: int
    state: str
    moment: str
    delay: float
    slow_submit: float
    swallows: int
    twice: float | None
    crowded: bool
    flaw: str | None = None

    @property
    def random(self) -> random.Random:
        return random.Random(f"{SEED}/{self.number}")

    @classmethod
    def drawn(cls, number: int, flaw: str | None = None) -> Case:
        draw = random.Random(f"{SEED}/case/{number}/{flaw}")
        moment = draw.choice(MOMENTS)
        slow = draw.uniform(2.6, 3.2) if draw.random() < SLOW_SHARE else draw.uniform(0, 0.6)
        longest = {"begin": draw.choice((0.001, 0.15)), "submit": slow, "request": 0.03, "wait": 0.5}[moment]
        return cls(
            number=number,
            state=draw.choice(STATES),
            moment=moment,
            delay=draw.uniform(0, longest),
            slow_submit=slow,
            swallows=draw.choice((0, 0, 0, 1, 2)),
            twice=draw.uniform(0, 0.15) if draw.random() < 0.2 else None,
            crowded=draw.random() < 0.25,
            flaw=flaw,
        )


# -- the task's side: runs in a forked process ---------------------------------------------------------------


class JobEndedError(Exception):
    """What the operator raises for a job that did not succeed."""


def tell_of_the_library(tell: Callable[..., None]) -> None:
    """When a stop becomes the library's business, and when it leaves for one."""
    begin_work, leave = DurableTask.begin_work, ending.leave

    def begin(self: DurableTask) -> None:
        begin_work(self)
        tell("begins")

    def told(run: JobRun, stop: Stop) -> NoReturn:
        tell("leaving", stop=stop.name)
        leave(run, stop)

    DurableTask.begin_work, ending.leave = begin, told  # type: ignore[method-assign]


class TrainOperator(ResumableMixin, BaseOperator):
    """Does what operators do while they submit and wait: a bit of everything, with handlers of all kinds."""

    template_fields = ("spec",)

    def __init__(self, *, spec: str, case: Case, url: str, tell: Callable[..., None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec, self.case, self.url, self.tell = spec, case, url, tell
        self.draw = case.random
        self.swallows = case.swallows
        self.phase, self.doing = "begin", "library"
        self.numbers = itertools.count()

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)

    # the six methods and the optional ones

    def submit_job(self, context: Any) -> Any:
        self.phase = "before the POST"
        for _ in range(self.draw.randrange(4)):
            self.do_something(context)
        self.phase = "POST"
        with self.while_doing("HTTP"):
            job = self.ask("POST", f"/jobs/{self.idempotency_token}")["id"]
        self.phase = "after the POST"
        return job

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        self.phase = "wait"
        while True:
            with self.while_doing("HTTP"):
                status = self.get_job_status(external_id, context)
            if not self.is_job_active(status):
                raise JobEndedError(status)
            for _ in range(self.draw.randrange(1, 5)):
                self.do_something(context)

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return self.ask("GET", f"/jobs/{external_id}")["status"]

    def find_job(self, token: str, context: Any) -> Any:
        return self.ask("GET", f"/tokens/{token}")["id"]

    def cancel_job(self, external_id: Any, context: Any) -> None:
        self.ask("DELETE", f"/jobs/{external_id}")

    def is_job_active(self, status: str) -> bool:
        return status == "RUNNING"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "SUCCEEDED"

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return external_id

    # what it does all day

    def do_something(self, context: Any) -> None:
        asks = (self.variable, self.raw_variable, self.xcom, self.store)
        others = (self.status, self.sleep, self.wait_for_event, self.think)
        it = self.draw.choices((*asks, *others), weights=(3, 2, 3, 4, 3, 4, 1, 2))[0]
        with self.while_doing(it.__name__):
            if self.swallows:
                try:
                    it(context)
                except BaseException as e:
                    self.swallows -= isinstance(e, Interrupted)
                    self.tell("swallowed", error=repr(e))
            elif self.draw.random() < 0.4:
                with contextlib.suppress(Exception):
                    it(context)
            else:
                it(context)

    def variable(self, context: Any) -> None:
        key = f"var_{next(self.numbers)}"
        self.expect(f"value of {key}", lambda: Variable.get(key))

    def raw_variable(self, context: Any) -> None:
        key = f"raw_{next(self.numbers)}"
        ask = comms.GetVariable(key=key)
        self.expect(f"value of {key}", lambda: task_runner.SUPERVISOR_COMMS.send(ask).value)

    def xcom(self, context: Any) -> None:
        key = f"xcom_{next(self.numbers)}"
        pull = context["ti"].xcom_pull
        self.expect(f"xcom of other {key}", lambda: pull(task_ids="other", key=key, map_indexes=-1))

    def store(self, context: Any) -> None:
        key, value = f"mark_{next(self.numbers) % 3}", self.draw.random()
        kept = context["task_state_store"]
        given_up = self.case.state in GIVEN_UP
        self.expect(None, lambda: kept.set(key, value), unless=is_old_id if given_up else None)
        unless = (lambda got: got == "no such key") if given_up else None
        self.expect(value, lambda: kept.get(key, "no such key"), unless=unless)

    def status(self, context: Any) -> None:
        got = self.ask("GET", "/echo/status")["path"]
        if got != "/echo/status":
            self.tell("wrong", got=got, expected="/echo/status")

    def sleep(self, context: Any) -> None:
        time.sleep(self.draw.choice((0, 0.005, 0.03, 0.03, 0.3)))

    def wait_for_event(self, context: Any) -> None:
        threading.Event().wait(0.02)

    def think(self, context: Any) -> None:
        until = time.monotonic() + self.draw.uniform(0, 0.01)
        while time.monotonic() < until:
            sum(range(500))

    @contextlib.contextmanager
    def while_doing(self, what: str) -> Iterator[None]:
        before, self.doing = self.doing, what
        try:
            yield
        finally:
            self.doing = before

    def expect(self, answer: Any, ask: Callable[[], Any], *, unless: Callable[[Any], bool] | None = None) -> None:
        """Tell about every answer that is not the one to this question."""
        try:
            got = ask()
        except Exception as e:
            got = e
        if got != answer and not (unless and unless(got)):
            self.tell("wrong", got=repr(got), expected=repr(answer))

    def ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


def is_old_id(error: Any) -> bool:
    return isinstance(error, AirflowRuntimeError) and "status_code': 404" in repr(error.error)


def task(case: Case, url: str, wire: socket.socket, report: socket.socket, log: str) -> None:
    """What the forked process does: Airflow's task runner, as far as an interruption can tell."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)

    def tell(event: str, **more: Any) -> None:
        os.write(report.fileno(), (json.dumps({"event": event, **more}) + "\n").encode())

    task_runner.SUPERVISOR_COMMS = comms.CommsDecoder(
        socket=wire, body_decoder=TO_TASK, err_decoder=TypeAdapter(comms.ErrorResponse)
    )
    if case.flaw:
        FLAWS[case.flaw]()
    tell_of_the_library(tell)
    operator = TrainOperator(task_id=TASK, spec="s", case=case, url=url, tell=tell)
    context = context_of(operator)
    landed = []

    def on_term(signum: int, frame: Any) -> None:
        if not landed:
            landed.append(1)
            early = operator._resumable.run is None or operator._resumable.run.watch is None
            tell("landed", phase=operator.phase, doing=doing(operator, frame), early=early)
        operator.on_kill()

    signal.signal(signal.SIGTERM, on_term)
    if case.crowded:
        threading.Thread(target=ask_on_and_on, args=(operator,), daemon=True).start()
    ExecutorSafeguard.tracker.set(operator)
    try:
        operator.execute(context)
        error = None
    except BaseException as e:
        error = e
    # as Airflow does, which asks on after execute() is left
    for _ in range(3):
        operator.variable(context)
        operator.xcom(context)
    reschedule = isinstance(error, AirflowRescheduleException)
    tell("left", error=type(error).__name__, text=str(error)[:300], reschedule=reschedule)
    os._exit(0)


def context_of(operator: Any) -> dict[str, Any]:
    names = {"dag_id": DAG, "run_id": RUN, "task_id": TASK, "map_index": -1}
    ti = task_runner.RuntimeTaskInstance.model_construct(id=uuid.uuid4(), **names, try_number=1, max_tries=3, task=operator)
    scope: Any = SimpleNamespace(**names)  # looked at by custom backends only
    run = SimpleNamespace(clear_number=0, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), run_id=RUN)
    store = TaskStateStoreAccessor(ti.id, scope)
    return {"ti": ti, "dag_run": run, "task": operator, "task_state_store": store}


def ask_on_and_on(operator: TrainOperator) -> None:
    for number in itertools.count():
        key = f"beside_{number}"
        ask = comms.GetVariable(key=key)
        operator.expect(f"value of {key}", lambda ask=ask: task_runner.SUPERVISOR_COMMS.send(ask).value)
        time.sleep(0.01)


def doing(operator: TrainOperator, frame: Any) -> str:
    """What the signal came into: a request that is in flight matters most."""
    while frame is not None:
        if frame.f_code is comms.CommsDecoder.send.__code__:
            return "supervisor request"
        frame = frame.f_back
    return operator.doing


# -- safeguards that can be taken away -----------------------------------------------------------------------


def asks_in_the_handler() -> None:
    notice = Interruption.notice

    def ask_first(self: Interruption) -> None:
        if self._stop is None:
            self._own_state()
        notice(self)

    Interruption.notice = ask_first


def raises_in_the_handler() -> None:
    def raise_at_once(self: Interruption) -> None:
        if self._stop is None:
            self._stop = Stop.EVICTION
            raise Interrupted(Stop.EVICTION)

    Interruption.notice = raise_at_once


def raises_without_the_lock() -> None:
    host.request_lock = nullcontext


def raises_once() -> None:
    sent = []

    def first_only(pid: int, number: int) -> None:
        if not sent:
            os.kill(pid, number)
        sent.append(number)

    interruption.os = SimpleNamespace(**{**vars(os), "kill": first_only})


def waits_for_an_answer_as_if_nobody_wanted_to_cancel() -> None:
    interruption.CANCEL_GRACE_SECONDS = interruption.HANDLE_GRACE_SECONDS


def takes_every_stop_for_an_eviction() -> None:
    interruption.why = lambda state: Stop.EVICTION


def takes_every_stop_for_a_users() -> None:
    interruption.why = lambda state: Stop.BY_USER


FLAWS: dict[str, Callable[[], None]] = {
    flaw.__name__: flaw
    for flaw in (
        asks_in_the_handler,
        raises_in_the_handler,
        raises_without_the_lock,
        raises_once,
        waits_for_an_answer_as_if_nobody_wanted_to_cancel,
        takes_every_stop_for_an_eviction,
        takes_every_stop_for_a_users,
    )
}


# -- the other side: Airflow's supervisor and the job service ------------------------------------------------


@dataclass
class Supervisor:
    """Answers a task's requests in turn, each after a while, each with what only that question can get."""

    case: Case
    wire: socket.socket
    state: str = "running"
    kept: dict[str, Any] = field(default_factory=dict)
    asked: threading.Event = field(default_factory=threading.Event)
    nth: int = 0
    error: str = ""

    def serve(self) -> None:
        draw = self.case.random
        self.nth = draw.randrange(1, 20)
        requests = msgspec.msgpack.Decoder(comms._RequestFrame)
        with contextlib.suppress(OSError, EOFError):
            for number in itertools.count(1):
                frame = requests.decode(self._read(int.from_bytes(self._read(4), "big")))
                if number >= self.nth:
                    self.asked.set()
                time.sleep(draw.uniform(0, 0.03))
                try:
                    answer = self._answer(TO_SUPERVISOR.validate_python(frame.body))
                except Exception as e:
                    self.error = repr(e)
                    return
                self.wire.sendall(self._framed(frame.id, answer).as_bytes())

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += self.wire.recv(length - len(data)) or self._end()
        return data

    def _end(self) -> bytes:
        raise EOFError

    def _framed(self, number: int, answer: Any) -> Any:
        if isinstance(answer, comms.ErrorResponse) and answer.error is ErrorType.API_SERVER_ERROR:
            return comms._ResponseFrame(id=number, error=answer.model_dump())
        return comms._ResponseFrame(id=number, body=answer.model_dump() if answer else None)

    def _answer(self, ask: Any) -> Any:
        match ask:
            case comms.GetVariableKeys():  # none is left of an older Airflow
                return comms.VariableKeysResult(keys=[], total_entries=0)
            case comms.GetVariable(key=key) if key.startswith("resumable."):
                return comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": key})
            case comms.GetVariable(key=key):
                return comms.VariableResult(key=key, value=f"value of {key}")
            case comms.GetXCom(key=key, task_id=task_id):
                return comms.XComResult(key=key, value=f"xcom of {task_id} {key}")
            case comms.GetTaskStates(task_ids=[task_id], run_ids=[run_id]):
                return comms.TaskStatesResult(task_states={run_id: {task_id: self.state}})
            case comms.GetTaskStateStore(key=key):
                if key in self.kept and self.state not in GIVEN_UP:
                    return comms.TaskStateStoreResult(value=self.kept[key])
                return comms.ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND, detail={"key": key})
            case comms.SetTaskStateStore(key=key, value=value):
                if self.state in GIVEN_UP:
                    detail = {"status_code": 404, "message": "not found", "detail": {}}
                    return comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail)
                self.kept[key] = value
                return comms.OKResponse(ok=True)
            case comms.MaskSecret():
                return None
        raise TypeError(f"no answer to {ask!r}")


@dataclass
class Desk:
    """One case's corner of the job service."""

    case: Case
    jobs: list[str] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    posted: threading.Event = field(default_factory=threading.Event)
    looked_at: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str) -> dict[str, Any]:
        _, kind, name = path.split("/")
        match method, kind:
            case "POST", "jobs":
                self.posted.set()
                late = self.case.random.random()  # the job may begin to exist early or late in its request
                time.sleep(self.case.slow_submit * late)
                self.jobs.append(name)
                time.sleep(self.case.slow_submit * (1 - late))
                return {"id": len(self.jobs)}
            case "GET", "jobs":
                self.looked_at.set()
                return {"status": "CANCELLED" if int(name) in self.cancelled else "RUNNING"}
            case "DELETE", "jobs":
                self.cancelled.append(int(name))
                return {}
            case "GET", "tokens":
                return {"id": self.jobs.index(name) + 1 if name in self.jobs else None}
        return {"path": path}


class Service:
    """The job service: a corner per case, under ``/<case>/...``."""

    def __init__(self) -> None:
        desks: dict[str, Desk] = {}
        self.desks = desks
        draw = random.Random(SEED)

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                _, number, path = self.path.split("/", 2)
                time.sleep(draw.uniform(0, 0.02))
                data = json.dumps(desks[number].answer(self.command, "/" + path)).encode()
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                """A client that was killed is no error."""

        self.server = Server(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Service:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def desk(self, case: Case) -> tuple[Desk, str]:
        name = f"{case.number}-{case.flaw}"
        desk = self.desks[name] = Desk(case)
        return desk, f"http://127.0.0.1:{self.server.server_port}/{name}"


# -- one case ------------------------------------------------------------------------------------------------


class Reports:
    """What the task tells, line by line."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._rest = end, b""
        self.events: list[dict[str, Any]] = []
        self.closed = False

    def until(self, done: Callable[[], Any], deadline: float) -> bool:
        """Take in what is told until *done*, the task's end or *deadline*."""
        while not done():
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                return False
            self._end.settimeout(left)
            try:
                data = self._end.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            self.closed = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.events += map(json.loads, lines)
        return True

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] in kinds]


@dataclass
class Seen:
    """What came of one case."""

    case: Case
    complaints: list[str]
    landed: str
    end: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.case}\n    landed in {self.landed}, {self.end}\n    " + "\n    ".join(self.complaints)


class Cases:
    """Runs cases, some at a time."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload([__name__])
        self._starting = threading.Lock()

    def run(self, cases: list[Case]) -> list[Seen]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.run_one, cases))

    def run_one(self, case: Case) -> Seen:
        desk, url = self.service.desk(case)
        ours, theirs = socket.socketpair()
        reports_end, report = socket.socketpair()
        watched = Supervisor(case, ours)
        server = threading.Thread(target=watched.serve, daemon=True)
        server.start()
        log = self.folder / f"{case.number}-{case.flaw}.log"
        process = self.processes.Process(target=task, args=(case, url, theirs, report, str(log)))
        with self._starting:
            process.start()
        theirs.close()
        report.close()
        reports = Reports(reports_end)
        try:
            return self._interrupt(case, process, desk, watched, reports, log)
        finally:
            process.kill()
            process.join()
            ours.close()
            reports_end.close()
            server.join(5)

    def _interrupt(self, case: Case, process: Any, desk: Desk, watched: Supervisor, reports: Reports, log: Path) -> Seen:
        assert reports.until(lambda: reports.of("begins"), time.monotonic() + START), (
            f"{case} does not begin: {log.read_text()[-2000:] if log.exists() else 'no log'}"
        )
        moments = {"submit": desk.posted, "request": watched.asked, "wait": desk.looked_at}
        if case.moment in moments:
            assert moments[case.moment].wait(START), f"{case}: no {case.moment}: {log.read_text()[-2000:]}"
        time.sleep(case.delay)

        watched.state = case.state
        told_at = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        if case.twice is not None:
            time.sleep(case.twice)
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)

        def has_settled() -> bool:
            return bool(reports.of("left") or any(e["stop"] != "EVICTION" for e in reports.of("leaving")))

        end = told_at + SIGKILL_AFTER
        settled = reports.until(has_settled, end)
        seconds = time.monotonic() - told_at
        # parked until SIGKILL: nothing may happen any more
        linger = SIGKILL_AFTER if case.number % 10 == 0 else LINGER
        reports.until(lambda: reports.of("left"), min(end, time.monotonic() + linger))
        if not settled and process.is_alive():
            os.kill(process.pid, signal.SIGUSR1)
            time.sleep(0.3)
        process.kill()
        process.join()

        complaints = list(self._complaints(case, desk, watched, reports, settled))
        if complaints:
            complaints += [f"told: {reports.events[1:]}", "log:", *log.read_text()[-6000:].splitlines()]
        landed = reports.of("landed")
        where = "nowhere"
        if landed:
            early = ", before the library stands by" if landed[0]["early"] else ""
            where = f"{landed[0]['phase']}, {landed[0]['doing']}{early}"
        left = reports.of("left")
        how = left[0]["error"] if left else "parked" if settled else "stuck"
        return Seen(case, complaints, where, how, seconds)

    def _complaints(self, case: Case, desk: Desk, watched: Supervisor, reports: Reports, settled: bool) -> Iterator[str]:
        left = reports.of("left")
        error = left[0]["error"] if left else None
        if not settled:
            yield "not settled within five seconds"
        if watched.error:
            yield f"the supervisor: {watched.error}"
        for wrong in reports.of("wrong"):
            yield f"wrong answer: {wrong}"
        if len(desk.jobs) > 1:
            yield f"{len(desk.jobs)} jobs"
        cancels = len(desk.cancelled)
        wanted = min(1, len(desk.jobs)) if case.state in (*BY_USER, "restarting") else 0
        if cancels < wanted:
            yield "lost stop: the job was not cancelled"
        if cancels > wanted:
            yield f"{cancels} cancels instead of {wanted}"
        if case.state == "running":
            if left and not left[0]["reschedule"]:
                yield f"an eviction ends with {error}: {left[0]['text']}"
            elif settled and not left:
                yield "an eviction does not hand the task back"
        elif left and left[0]["reschedule"]:
            yield f"state {case.state} ends with {error}"
        if case.state not in GIVEN_UP and desk.jobs and not self._kept(desk, watched):
            yield f"the record does not lead to the job: {watched.kept.get('resumable')}"

    def _kept(self, desk: Desk, watched: Supervisor) -> bool:
        return watched.kept.get("resumable", {}).get("token") == desk.jobs[0] if desk.jobs else True


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    with Service() as service, pytest.MonkeyPatch.context() as patch:
        root = Path(__file__).parents[2]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH")))))
        running = Cases(service, tmp_path_factory.mktemp("interrupts"))
        multiprocessing.forkserver.ensure_running()
        yield running


def test_every_stop_is_settled_whenever_it_comes(cases: Cases) -> None:
    print(f"\nINTERRUPT_SEED={SEED}, {CASES} cases")
    seen = cases.run([Case.drawn(number) for number in range(CASES)])
    tell(seen)
    bad = [one for one in seen if one.complaints]
    assert not bad, f"INTERRUPT_SEED={SEED}: {len(bad)} of {CASES} cases\n" + "\n\n".join(map(str, bad[:10]))


STUCK, SHIFTED = "not settled within five seconds", "wrong answer"
IN_A_REQUEST = {
    "moment": "request",
    "delay": 0.001,
    "state": "running",
    "swallows": 0,
    "twice": None,
    "crowded": False,
}


@pytest.mark.parametrize(
    ("flaw", "complaints", "setting"),
    [
        ("asks_in_the_handler", [STUCK], IN_A_REQUEST),
        ("raises_in_the_handler", [SHIFTED], IN_A_REQUEST),
        ("raises_without_the_lock", [SHIFTED, STUCK], IN_A_REQUEST),
        ("raises_once", [STUCK], {"moment": "wait", "swallows": 2}),
        (
            "waits_for_an_answer_as_if_nobody_wanted_to_cancel",
            ["lost stop"],
            {"moment": "submit", "state": "failed", "slow_submit": 3.2, "delay": 0.05},
        ),
        ("takes_every_stop_for_an_eviction", ["lost stop"], {"moment": "wait", "state": "failed"}),
        ("takes_every_stop_for_a_users", ["1 cancels instead of 0"], {"moment": "wait", "state": "running"}),
    ],
)
def test_it_can_fail(cases: Cases, flaw: str, complaints: list[str], setting: dict[str, Any]) -> None:
    seen = cases.run([replace(Case.drawn(number, flaw), **setting) for number in range(1, AT_ONCE + 1)])
    found = Counter(text for one in seen for text in complaints if any(c.startswith(text) for c in one.complaints))
    print(f"{flaw}: of {len(seen)} cases {dict(found)}")
    assert found, "\n".join(map(str, seen))


def tell(seen: list[Seen]) -> None:
    """Where the signals landed, and how the tasks ended."""
    landed, ended = [one.landed for one in seen], [f"{one.case.state}: {one.end}" for one in seen]
    for title, found in (("landed in", landed), ("ended", ended)):
        print(title)
        for what, count in sorted(Counter(found).items()):
            print(f"  {count:4} {what}")
    seconds = sorted(one.seconds for one in seen)
    print(f"settled after {seconds[len(seconds) // 2]:.2f} s (median), {seconds[-1]:.2f} s at most")

"""
An HTTP proxy in front of Airflow's Execution API that journals, holds, delays and fails requests.

Every request of a LocalExecutor task goes task process -> supervisor -> here -> api-server, so a test can
stop a task exactly where it writes to its state store, kill its worker there, and then decide what became of
the request: forwarded, refused, or forwarded with the answer lost.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Where = Callable[[str, Any], bool]
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}
_RUN = re.compile(r"/task-instances/([^/]+)/run$")


@dataclass
class Request:
    """One line of the journal; `status` is None until it is answered, -1 if the api-server is down."""

    method: str
    path: str
    body: Any
    time: float = field(default_factory=time.time)
    status: int | None = None


@dataclass(eq=False)
class _Rule:
    method: str
    path: re.Pattern[str]
    skip: int
    where: Where | None
    run_id: str | None
    ti_id: str | None

    def fits(self, request: Request, runs: dict[str, str]) -> bool:
        if request.method != self.method or not self.path.search(request.path):
            return False
        parts = request.path.partition("?")[0].split("/")
        if self.ti_id is not None and self.ti_id not in parts:
            return False
        if self.run_id is not None and self.run_id not in [runs.get(part, part) for part in parts]:
            return False
        if self.where is not None and not self.where(request.path, request.body):
            return False
        self.skip -= 1
        return self.skip < 0


class Held(_Rule):
    """The first request that fits is kept here until `release` or `refuse`; those after it pass."""

    def __init__(self, after: bool, **rule: Any) -> None:
        super().__init__(**rule)
        self.after = after
        self.request: Request | None = None
        self._verdict: int | None = None
        self._reached, self._decided = threading.Event(), threading.Event()

    def wait_reached(self, timeout: float = 60) -> Request:
        """Wait until the request is here (with `after`: until the api-server has answered it)."""
        if not self._reached.wait(timeout) or self.request is None:
            raise TimeoutError(f"no {self.method} {self.path.pattern} within {timeout:g} s")
        return self.request

    def release(self) -> None:
        """Let it go: forward the request, or with `after` hand over the kept answer."""
        self._decided.set()

    def refuse(self, status: int = 0) -> None:
        """Answer `status` instead, 0 for closing the connection; a request held before is never forwarded."""
        self._verdict = status
        self._decided.set()

    def keep(self, request: Request) -> int | None:
        self.request = request
        self._reached.set()
        self._decided.wait()
        return self._verdict


class Failing(_Rule):
    """The next `times` requests that fit get `status` and are not forwarded."""

    def __init__(self, status: int, times: int, **rule: Any) -> None:
        super().__init__(**rule)
        self.status = status
        self.times = times


class Slow(_Rule):
    """Every request that fits is forwarded so much later, until `end`."""

    def __init__(self, seconds: float, **rule: Any) -> None:
        super().__init__(**rule)
        self.seconds = seconds

    def end(self) -> None:
        self.seconds = 0.0


class ExecutionApiProxy:
    """
    Forward 127.0.0.1:`port` to `upstream` ("host:port") as a context manager.

    A hold outlives a supervisor that was killed: `release` then delivers the write of a dead process late.
    A supervisor that is held does nothing else, heartbeats included, and repeats the request once its own
    `[workers] execution_api_timeout` has passed; the harness sets that longer than any hold should last.
    """

    def __init__(self, upstream: str, port: int = 0) -> None:
        self.upstream = upstream
        self.journal: list[Request] = []
        self._runs: dict[str, str] = {}  # ti_id -> run_id, learnt from the answers to PATCH .../run
        self._holds: list[Held] = []
        self._failing: list[Failing] = []
        self._slow: list[Slow] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> ExecutionApiProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for held in list(self._holds):
            held.refuse()
        self._server.shutdown()
        self._server.server_close()

    def hold(
        self,
        method: str,
        path_regex: str,
        *,
        skip: int = 0,
        run_id: str | None = None,
        ti_id: str | None = None,
        where: Where | None = None,
        after: bool = False,
    ) -> Held:
        """
        Hold one request, the `skip`-th that fits, before it is forwarded (`after`: once it is answered).

        `where(path, body)` sees the path with its query, percent-decoded, and the decoded JSON body. A
        run_id is known for paths that contain it and for those with the id of a task instance started since.
        """
        rule = {"skip": skip, "run_id": run_id, "ti_id": ti_id, "where": where}
        held = Held(after, method=method, path=re.compile(path_regex), **rule)
        with self._lock:
            self._holds.append(held)
        return held

    def fail(
        self,
        method: str,
        path_regex: str,
        *,
        status: int = 500,
        times: int = 1,
        skip: int = 0,
        run_id: str | None = None,
        ti_id: str | None = None,
        where: Where | None = None,
    ) -> Failing:
        """
        Answer the next `times` requests that fit with `status`, or close the connection for status 0.

        The supervisor makes five attempts itself on a 5xx or a closed connection, 4 to 15 s in all: `times`
        under 5 is invisible to the task, and every multiple of 5 is one failed call.
        """
        rule = {"skip": skip, "run_id": run_id, "ti_id": ti_id, "where": where}
        failing = Failing(status, times, method=method, path=re.compile(path_regex), **rule)
        with self._lock:
            self._failing.append(failing)
        return failing

    def slow(self, method: str, path_regex: str, seconds: float, *, run_id: str | None = None) -> Slow:
        """Have every request that fits take this much longer, as on an api-server under load."""
        rule: dict[str, Any] = {"skip": 0, "run_id": run_id, "ti_id": None, "where": None}
        slow = Slow(seconds, method=method, path=re.compile(path_regex), **rule)
        with self._lock:
            self._slow.append(slow)
        return slow

    def delay(self, request: Request) -> None:
        """Wait for as long as the request is to take longer."""
        with self._lock:
            seconds = max((one.seconds for one in self._slow if one.fits(request, self._runs)), default=0.0)
        time.sleep(seconds)

    def requests(self, method: str, path_regex: str) -> list[Request]:
        """Return the journal's lines that fit, oldest first."""
        return [r for r in self.journal if r.method == method and re.search(path_regex, r.path)]

    def enter(self, request: Request) -> tuple[Held | None, int | None]:
        with self._lock:
            self.journal.append(request)
            for failing in self._failing:
                if failing.times > 0 and failing.fits(request, self._runs):
                    failing.times -= 1
                    return None, failing.status
            for held in self._holds:
                if held.fits(request, self._runs):
                    self._holds.remove(held)
                    return held, None
        return None, None

    def learn(self, request: Request, answer: bytes) -> None:
        if (started := _RUN.search(request.path)) and request.status == 200:
            self._runs[started[1]] = json.loads(answer)["dag_run"]["run_id"]


class _Handler(BaseHTTPRequestHandler):
    owner: ExecutionApiProxy
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # the supervisor was killed
            super().handle()

    def _forward(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, unquote(self.path), _decoded(content))
        held, status = self.owner.enter(request)
        self.owner.delay(request)
        if status is None and held is not None and not held.after:
            status = held.keep(request)
        if status is None:
            try:
                answer, headers, body = self._ask(content)
            except (OSError, http.client.HTTPException):
                request.status = -1
                self.close_connection = True
                return
            request.status = answer
            self.owner.learn(request, body)
            if held is not None and held.after:
                status = held.keep(request)
        if status is None:
            self._answer(answer, headers, body)
            return
        request.status = status
        if status:
            detail = json.dumps({"detail": "refused by the test's proxy"}).encode()
            self._answer(status, [("Content-Type", "application/json")], detail)
        else:
            self.close_connection = True

    def _ask(self, content: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.owner.upstream, timeout=60)
        try:
            dropped = _HOP_BY_HOP | {"accept-encoding"}  # answers are read here, so no gzip
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            connection.request(self.command, self.path, content or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            if status != 204:  # a 204 has no body and must not carry a length
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the supervisor is gone
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _forward

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the journal has it."""


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode(errors="replace")

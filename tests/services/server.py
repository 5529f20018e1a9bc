"""An HTTP service in threads of the test's own process, with a journal of its calls and injected faults."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from werkzeug import Request, Response
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from .faults import Drop, Fault, Hold, Refuse
from .journal import Answer, Call, Journal

if TYPE_CHECKING:
    from typing import Self


@dataclass
class _Planned:
    """A fault with what it waits for; *until* is a time.monotonic() for outages."""

    operations: frozenset[str]
    fault: Fault
    times: int
    until: float | None = None
    text: str = ""

    def matches(self, operation: str, body: dict[str, Any]) -> bool:
        return (
            bool({"*", operation} & self.operations)
            and (self.until is None or time.monotonic() < self.until)
            and self.text in json.dumps(body, default=str)
        )


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: the journal has it."""


class ServiceServer:
    """
    Base of the simulated services: a threaded HTTP server on a free port of 127.0.0.1.

    Subclasses implement ``parse`` and ``respond``; ``respond`` runs under ``self.lock``, which
    methods for the test's side take too. Use as a context manager.
    """

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._journal = Journal()
        self._planned: list[_Planned] = []
        self.taken: list[Fault] = []
        """Faults that have acted on a call, one for each call."""
        self._holds: list[Hold] = []
        self._server: BaseWSGIServer | None = None

    def parse(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Return the operation's name and the parsed body."""
        raise NotImplementedError

    def respond(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        """Do the work and return the answer."""
        raise NotImplementedError

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        """Return what the service usually says with an error *status*."""
        return {"status": status, "message": message}

    # -- running ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._server = make_server(self.host, 0, self, threaded=True, request_handler=_QuietHandler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for hold in self._holds:
            hold.release(drop=True)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the service is not running: use it as a context manager")
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    # -- journal ---------------------------------------------------------------------------------

    def calls(self, operation: str | None = None) -> list[Call]:
        """Return the received calls in order of arrival, of one *operation* or of all."""
        return self._journal.calls(operation)

    def count(self, operation: str) -> int:
        """Return how many calls of *operation* were received, whatever became of them."""
        return len(self.calls(operation))

    def wait_for(self, operation: str, count: int = 1, timeout: float = 10.0, *, answered: bool = False) -> list[Call]:
        """
        Block until *count* calls of *operation* were received, and return them.

        Received is not done: with *answered* the work is done too and the answer under way (or dropped).

        Raises: TimeoutError: fewer arrived in *timeout* seconds.
        """
        return self._journal.wait_for(operation, count, timeout, answered=answered)

    # -- faults ----------------------------------------------------------------------------------

    def fault(self, operation: str, fault: Fault, times: int = 1, *, text: str = "") -> None:
        """Let *fault* act on the next *times* calls of *operation* ("*": any) with *text* in it; -1: until clear_faults()."""
        self._plan(_Planned(frozenset({operation}), fault, times, text=text))

    @contextlib.contextmanager
    def outage(self, operations: str | Iterable[str] = "*", seconds: float | None = None) -> Iterator[None]:
        """Refuse *operations* with 503 inside the block, or for its first *seconds* only."""
        names = frozenset({operations} if isinstance(operations, str) else operations)
        until = None if seconds is None else time.monotonic() + seconds
        planned = _Planned(names, Refuse(503), -1, until)
        self._plan(planned)
        try:
            yield
        finally:
            with self.lock:
                self._planned = [other for other in self._planned if other is not planned]

    @property
    def has_faults(self) -> bool:
        """Some are not consumed yet."""
        with self.lock:
            return any(planned.times for planned in self._planned)

    def clear_faults(self) -> None:
        """Forget the faults not yet consumed; calls being held stay held."""
        with self.lock:
            self._planned.clear()

    def _plan(self, planned: _Planned) -> None:
        with self.lock:
            self._planned.append(planned)
            if isinstance(planned.fault, Hold):
                self._holds.append(planned.fault)

    def _next_fault(self, operation: str, body: dict[str, Any]) -> Fault | None:
        with self.lock:
            planned = next((entry for entry in self._planned if entry.matches(operation, body)), None)
            if planned is None:
                return None
            planned.times -= 1
            if planned.times == 0:
                self._planned.remove(planned)
            self.taken.append(planned.fault)
            return planned.fault

    # -- the WSGI application --------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        request.get_data()  # read, and kept, before anything can close the connection
        operation, body = self.parse(request)
        number = self._journal.open(operation, body)
        fault = self._next_fault(operation, body)

        try:
            answer, response = self._answer(fault, request, operation, body)
        except Exception:
            self._journal.close(number, "sent", 500)
            raise
        if response is None:
            self._journal.close(number, answer)
            _hang_up(environ)
        self._journal.close(number, answer, response.status_code)
        return response(environ, start_response)

    def _answer(
        self, fault: Fault | None, request: Request, operation: str, body: dict[str, Any]
    ) -> tuple[Answer, Response | None]:
        """Do the work, unless *fault* forbids, and return the answer; None hangs up."""
        if isinstance(fault, Refuse):
            if fault.after_effect:
                self._work(request, operation, body)
            usual = self.error_body(fault.status, "refused by an injected fault")
            return "refused", json_response(usual if fault.body is None else fault.body, fault.status)

        if isinstance(fault, Drop | Hold) and fault.before_effect:
            if fault.let_go_dropped():
                return "dropped", None
            return "sent", self._work(request, operation, body)

        response = self._work(request, operation, body)
        if isinstance(fault, Drop | Hold) and fault.let_go_dropped():
            return "dropped", None
        return "sent", response

    def _work(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        with self.lock:
            return self.respond(request, operation, body)


def json_response(body: dict[str, Any] | str, status: int = 200) -> Response:
    """Return *body* as a JSON answer."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Response(text, status, content_type="application/json")


def _hang_up(environ: dict[str, Any]) -> NoReturn:
    """
    Close the connection now and leave the handler.

    shutdown() rather than close(): a child forked by a test may hold a copy of the descriptor.
    werkzeug takes a ConnectionError for a client that went away and logs nothing.
    """
    with contextlib.suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("dropped by an injected fault")

"""MWAA's other way to its REST API, for who may not invoke it: a request of its own, after boto's was refused."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from urllib3.exceptions import NewConnectionError

from tests.contract.cases import CASES
from tests.services.faults import Refuse
from tests.support.runner import TaskInstance

pytestmark = [
    pytest.mark.usefixtures("no_waiting"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # the provider's, about airflow_version
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
MAY_NOT = {"__type": "AccessDeniedException", "message": "User may not use this Airflow role"}
NOT_CONNECTED = requests.ConnectionError(NewConnectionError(None, "Connection refused"))  # type: ignore[arg-type]


def answered(status: int, detail: str = "") -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, f'{{"detail": "{detail}"}}'.encode()
    return response


@pytest.mark.parametrize(
    ("outcome", "is_made", "state"),
    [
        (requests.ReadTimeout("read timed out"), True, "submitting"),
        (requests.ReadTimeout("read timed out"), False, "submitting"),
        (requests.ConnectionError("Connection aborted.", ConnectionResetError()), True, "submitting"),
        (answered(502), True, "submitting"),
        (NOT_CONNECTED, False, "rejected"),
        (answered(403, "no"), False, "rejected"),
    ],
    ids=["time-out, made", "time-out, not made", "reset", "502", "not connected", "403"],
)
def test_the_refusal_of_the_first_way_says_nothing_of_what_the_second_came_to(
    outcome: Any, is_made: bool, state: str, monkeypatch: Any
) -> None:
    case = next(c for c in CASES if c.name == "mwaa-trigger-dag-run" and not c.deferrable)
    with case.bench(monkeypatch) as bench:
        bench.at_once()
        asked: list[str] = []

        def request(_: Any, method: str, url: str, *, json: Any = None, **__: Any) -> requests.Response:
            if url.endswith("/login"):
                login = answered(200)
                login.cookies.set("_token", "token")
                return login
            asked.append(method)
            if is_made:
                bench.server.add(json["dag_run_id"], json)
            if isinstance(outcome, requests.Response):
                return outcome
            raise outcome

        monkeypatch.setattr(requests.Session, "request", request)
        bench.server.fault("POST dagRuns", Refuse(403, MAY_NOT))
        instance = TaskInstance(lambda: case.ours(task_id="task", **bench.arguments()))
        with pytest.raises(requests.RequestException):
            instance.attempt()
        assert (asked, instance.record["state"]) == (["POST"], state)
        instance.attempt()
        assert (bench.jobs(), instance.record["state"]) == (1, "succeeded")

"""What clients raise for an answer that is an error."""

from __future__ import annotations

import pytest
import requests
import requests.adapters
from botocore.exceptions import ClientError


def client_error(status, operation="StartJobRun", code="X"):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


def http_error(status, method="POST"):
    answer = requests.Response()
    answer.status_code, answer.request = status, requests.Request(method, "http://x").prepare()
    return requests.HTTPError(f"{status} Error", response=answer)


def answer_of_server(status: int, message: str) -> Exception:
    pytest.importorskip("airflow.sdk", reason="Airflow 2 has no server to ask")
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    said = {"detail": {"reason": "not_found", "message": message}}
    detail = {"status_code": status, "message": "Server returned error", "detail": said}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))

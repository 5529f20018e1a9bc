"""
What a mocked client or hook lacks of a real one: botocore's events, and a signature.

Our AWS operators are at work in those events alone. A mocked client has none, so that its calls would go unseen. While the seam
of an operator is open, a call on a mocked client emits them as the real client does, around the mock that the test has set up.
What they make of a request has to be the test's own and our token, no more; the mock is then given the test's own.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import botocore.session
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.hooks import HierarchicalEmitter

from resumable.adapters import HookCall
from resumable.operators._aws import AwsCall
from tests.peers.stamp import only_stamped


@contextmanager
def events_around_mocked_clients() -> Iterator[None]:
    seam, call = AwsCall.intercept, mock.CallableMixin.__call__
    clients: dict[int, Any] = {}

    @contextmanager
    def seam_with_events(self: Any, attempt: Any) -> Iterator[None]:
        client = _mocked_client(self)
        if client is None:
            with seam(self, attempt):
                yield
            return
        meta = _with_events(client.meta, _service(_client_type(type(self.operator).aws_hook_class)))
        clients[id(client)] = meta
        try:
            with seam(self, attempt):
                yield
        finally:
            del clients[id(client)]

    def call_with_events(self: Any, *args: Any, **kwargs: Any) -> Any:
        meta = clients.get(id(self._mock_new_parent))
        operation = meta and meta.method_to_api_mapping.get(self._mock_new_name)
        answer = functools.partial(call, self)
        return _call(meta, operation, answer, kwargs) if operation and not args else answer(*args, **kwargs)

    AwsCall.intercept, mock.CallableMixin.__call__ = seam_with_events, call_with_events
    try:
        yield
    finally:
        AwsCall.intercept, mock.CallableMixin.__call__ = seam, call


@contextmanager
def signatures_of_mocked_hooks() -> Iterator[None]:
    """While it is open, the method of a mocked hook that an operator submits by has the real one's signature."""
    seam = HookCall.intercept

    @contextmanager
    def seam_with_signature(self: Any, attempt: Any) -> Iterator[None]:
        hook = self.hook
        if isinstance(hook, mock.NonCallableMock):
            real = functools.partial(getattr(DatabricksHook, self.submit_method), hook)
            getattr(hook, self.submit_method).__signature__ = inspect.signature(real)
            hook.retry_args = {}
        with seam(self, attempt):
            yield

    HookCall.intercept = seam_with_signature
    try:
        yield
    finally:
        HookCall.intercept = seam


def _mocked_client(job: Any) -> Any:
    client = job.hook.conn
    return client if isinstance(client, mock.NonCallableMock) and not isinstance(job.hook, mock.NonCallableMock) else None


def _with_events(meta: Any, service: Any) -> Any:
    meta.events, meta.service_model = HierarchicalEmitter(), service
    meta.client.meta = meta
    meta.method_to_api_mapping = {xform_name(name): name for name in service.operation_names}
    if not isinstance(meta.region_name, str):
        meta.region_name = "us-east-1"
    return meta


def _client_type(hook_class: Any) -> str:
    return str(hook_class(aws_conn_id=None).client_type)


@functools.cache
def _service(client_type: str) -> Any:
    return botocore.session.get_session().get_service_model(client_type)


def _call(meta: Any, operation: str, answer: Any, params: dict[str, Any]) -> Any:
    model = meta.service_model.operation_model(operation)
    name = f"{meta.service_model.service_id.hyphenize()}.{operation}"
    emit = functools.partial(meta.events.emit, model=model, context={})
    for _, response in emit(f"provide-client-params.{name}", params=params):
        if response is not None:
            assert only_stamped(params, response), f"more than a stamp: {params} became {response}"
    for _, response in emit(f"before-call.{name}", params=params, request_signer=None):
        if response is not None:
            http, parsed = response
            break
    else:
        http, parsed = _answer(answer, params)
    failed = parsed if isinstance(parsed, ClientError) else None
    if failed is not None:
        parsed = copy.deepcopy(failed.response)
    emit(f"after-call.{name}", http_response=http, parsed=parsed)
    if failed is not None and http.status_code >= 300:
        raise failed
    return parsed


def _answer(answer: Any, params: dict[str, Any]) -> tuple[Any, Any]:
    try:
        parsed = answer(**params)
    except ClientError as e:
        return types.SimpleNamespace(status_code=e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)), e
    metadata = parsed.get("ResponseMetadata", {}) if isinstance(parsed, dict) else {}
    return types.SimpleNamespace(status_code=metadata.get("HTTPStatusCode", 200)), parsed

"""The fixtures, without a database."""

from __future__ import annotations

import logging
import types
from datetime import datetime, timezone
from unittest import mock

import pytest
import structlog
from airflow.models.dag_version import DagVersion
from airflow.sdk import DAG, BaseOperator

from tests_common.test_utils.taskinstance import TaskInstance


@pytest.fixture
def session():
    return mock.MagicMock()


@pytest.fixture
def clean_dags_dagruns_and_dagbundles():
    return None


@pytest.fixture
def testing_dag_bundle(monkeypatch):
    monkeypatch.setattr(DagVersion, "get_latest_version", lambda *_, **__: types.SimpleNamespace(id="version"))


@pytest.fixture
def create_task_instance_of_operator():
    def create(operator, *, dag_id, schedule=None, **arguments):
        with DAG(dag_id, schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
            return TaskInstance(operator(**arguments))

    return create


@pytest.fixture
def create_task_instance(create_task_instance_of_operator):
    def create(**arguments):
        return create_task_instance_of_operator(BaseOperator, **arguments)

    return create


@pytest.fixture
def caplog(caplog):
    """Operators log to structlog, which pytest does not see."""

    def hand_on(_, method, event):
        level = logging.getLevelNamesMapping()[method.upper()]
        caplog.handler.handle(logging.makeLogRecord({"msg": event["event"], "levelno": level, "levelname": method.upper()}))
        return event

    processors = structlog.get_config()["processors"]
    processors.insert(0, hand_on)
    yield caplog
    processors.remove(hand_on)

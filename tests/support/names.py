"""What tests need of Airflow, under the same names on every version."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    TaskDeferred,
    Variable,
    get_current_context,
    task,
)

from resumable import compat

AirflowNotFoundException = compat._exception("AirflowNotFoundException")
AirflowRescheduleException = compat._exception("AirflowRescheduleException")
AirflowTaskTerminated = compat._exception("AirflowTaskTerminated")
ExecutorSafeguard: Any = compat._first_of("ExecutorSafeguard", "airflow.sdk.bases.operator", "airflow.models.baseoperator")
DagBag: Any = compat._first_of("DagBag", "airflow.dag_processing.dagbag", "airflow.models.dagbag")
_SERIALIZED = "airflow.serialization.serialized_objects"
_SERIALIZER = "DagSerialization" if compat._has(_SERIALIZED, "DagSerialization") else "SerializedDAG"
DagSerialization: Any = compat._first_of(_SERIALIZER, _SERIALIZED)
mask_secret: Any = compat._first_of(
    "mask_secret", "airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker"
)

STOPPED = (Exception, AirflowTaskTerminated)
"""How an attempt may end that a user has stopped: Airflow 2 has an exception for it, Airflow 3 a SIGKILL."""

__all__ = [
    "DAG",
    "STOPPED",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowRescheduleException",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseOperator",
    "DagBag",
    "DagSerialization",
    "ExecutorSafeguard",
    "TaskDeferred",
    "Variable",
    "get_current_context",
    "mask_secret",
    "task",
]

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

from resumable.host import versions

AirflowNotFoundException = versions.exception("AirflowNotFoundException")
AirflowRescheduleException = versions.exception("AirflowRescheduleException")
AirflowTaskTerminated = versions.exception("AirflowTaskTerminated")
ExecutorSafeguard: Any = versions.first_of("ExecutorSafeguard", "airflow.sdk.bases.operator", "airflow.models.baseoperator")
DagBag: Any = versions.first_of("DagBag", "airflow.dag_processing.dagbag", "airflow.models.dagbag")
_SERIALIZED = "airflow.serialization.serialized_objects"
_SERIALIZER = "DagSerialization" if versions.has(_SERIALIZED, "DagSerialization") else "SerializedDAG"
DagSerialization: Any = versions.first_of(_SERIALIZER, _SERIALIZED)
mask_secret: Any = versions.first_of(
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

"""What tests need of Airflow, under the same names on every version."""

from __future__ import annotations

from typing import Any

from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    BaseOperator,
    TaskDeferred,
    Variable,
)

from resumable import compat

ExecutorSafeguard: Any = compat._first_of("ExecutorSafeguard", "airflow.sdk.bases.operator", "airflow.models.baseoperator")
DagBag: Any = compat._first_of("DagBag", "airflow.dag_processing.dagbag", "airflow.models.dagbag")
mask_secret: Any = compat._first_of(
    "mask_secret", "airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker"
)

__all__ = [
    "DAG",
    "AirflowException",
    "AirflowFailException",
    "AirflowRescheduleException",
    "AirflowTaskTimeout",
    "BaseOperator",
    "DagBag",
    "ExecutorSafeguard",
    "TaskDeferred",
    "Variable",
    "mask_secret",
]

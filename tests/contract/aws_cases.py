"""The AWS operators that are told by a token or a mark, under contract: a service and a set of arguments for each."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.operators.athena import AthenaOperator

from resumable.operators.athena import ResumableAthenaOperator
from tests.contract.aws_jobs import bench
from tests.services import aws_tokens as services

BOTH: tuple[dict[str, Any], ...] = ({}, {"deferrable": True})


def _athena(word: str) -> dict[str, Any]:
    return {"query": f"SELECT '{word}'", "database": "db", "output_location": "s3://out/", "sleep_time": 0}


CASES: list[tuple[str, type[Any], Any, Any, tuple[dict[str, Any], ...]]] = [
    (
        "athena",
        ResumableAthenaOperator,
        AthenaOperator,
        bench(services.Athena, "StartQueryExecution", "GetQueryExecution", "StopQueryExecution", _athena),
        BOTH,
    ),
]

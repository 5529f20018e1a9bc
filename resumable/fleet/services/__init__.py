"""
How each service is asked about many jobs at once. What is in no list here is asked about one by one.

A job's `JobService` says by ``together`` which of them is its jobs': the name of a service is not enough, because whoever writes
an operator of his own may give it any.
"""

from __future__ import annotations

from resumable.fleet.lookups import Lookup, alone
from resumable.fleet.services import aws, databricks

LOOKUPS: dict[str, Lookup] = {
    lookup.name: lookup
    for lookup in (
        aws.ATHENA,
        aws.BATCH,
        aws.ECS,
        aws.EMR_STEPS,
        aws.EMR_CLUSTERS,
        aws.EMR_CONTAINERS,
        aws.EMR_SERVERLESS,
        aws.GLUE,
        aws.STEP_FUNCTIONS,
        *aws.SAGEMAKER,
        databricks.RUNS,
    )
}


def lookup_of(together: str, service: str) -> Lookup:
    """
    How jobs are asked about.

    Args:
        together: see `resumable.jobs.service.JobService.together`.
        service: the name of their service, for those that are asked about one by one.
    """
    return LOOKUPS[together] if together else alone(service)

"""How each service is asked about many jobs at once. What is in no list here is asked about one by one."""

from __future__ import annotations

from resumable.fleet.lookups import Lookup, alone
from resumable.fleet.services import aws, databricks
from resumable.jobs.record import JobHandle

LOOKUPS: dict[str, Lookup] = {
    lookup.name: lookup
    for lookup in (
        aws.ATHENA,
        aws.BATCH,
        aws.ECS,
        aws.EMR_STEPS,
        aws.EMR_CONTAINERS,
        aws.EMR_SERVERLESS,
        aws.GLUE,
        aws.STEP_FUNCTIONS,
        databricks.RUNS,
    )
}


def lookup_of(handle: JobHandle, kind: str = "") -> Lookup:
    """
    How the service of a job is asked.

    Args:
        handle: the job.
        kind: of a service that has several kinds of jobs, which; see `aws.sagemaker`.
    """
    if handle.service == "emr" and not (isinstance(handle.ids, dict) and handle.ids.get("steps")):
        return aws.EMR_CLUSTERS
    if handle.service == "databricks" and not (isinstance(handle.ids, dict) and "run_id" in handle.ids):
        return alone("databricks-sql")
    if handle.service == "sagemaker" and kind:
        return aws.sagemaker(kind)
    return LOOKUPS.get(handle.service) or alone(handle.service)

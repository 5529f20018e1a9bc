"""What the command reads and does beside the scheduler, in the metadata database: the same on Airflow 2 and 3."""

from resumable.host._beside.deployment import dag_ids, heartbeats, is_alive, pools, require_tables, tags, user
from resumable.host._beside.instances import (
    Instance,
    TaskKey,
    TaskName,
    argument_of,
    instances,
    mark_failed,
    operator_of,
    state_of,
)
from resumable.host._beside.marks import Mark, marks, write_mark
from resumable.host._beside.records import UNFINISHED, Kept, Records, put_record, records, remove, write

__all__ = [
    "UNFINISHED",
    "Instance",
    "Kept",
    "Mark",
    "Records",
    "TaskKey",
    "TaskName",
    "argument_of",
    "dag_ids",
    "heartbeats",
    "instances",
    "is_alive",
    "mark_failed",
    "marks",
    "operator_of",
    "pools",
    "put_record",
    "records",
    "remove",
    "require_tables",
    "state_of",
    "tags",
    "user",
    "write",
    "write_mark",
]

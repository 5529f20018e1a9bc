"""``sweep``: stop the jobs that a user's stop did not reach, and delete what nobody needs any more."""

from __future__ import annotations

import argparse

from resumable import host
from resumable.cleanup import sweep
from resumable.cleanup import variables as maintenance
from resumable.cli.output import DONE, TROUBLE, say


def run(given: argparse.Namespace) -> int:
    status = DONE
    if host.has_task_state() and host.records_are_elsewhere() is None:
        by_user = [argument for task in given.ended_by_user for argument in ("--ended-by-user", *task)]
        status = sweep.main([*(["--dry-run"] if given.dry_run else []), *by_user], say=say)
    tidied = maintenance.main(["--dry-run"] if given.dry_run else [])
    return TROUBLE if status or tidied else DONE

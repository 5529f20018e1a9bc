"""
A soak on a real Airflow: mapped tasks, random disruptions by a fixed seed, and the count of their jobs at the end.

    python3 dev.py soak [--seed N] [--tasks N] [--disruptions N] [--theirs] [--unheld] [--disasters-only] [--slots]
                        [--home DIR] [--json FILE]

Its order is drawn from the seed, its timing is the machine's. Exit code 1 if anything was not as it must be.
What Airflow wrote, logs and database, stays in `.soak/` or where --home says.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.soak import report
from tests.soak.oracle import violations
from tests.soak.plan import Plan, make_plan, slots_plan
from tests.soak.run import ROOT, running, soak

JOB_SECONDS = 60.0
_began = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - _began:6.1f} s  {text}", flush=True)


def _plan(given: argparse.Namespace) -> Plan:
    return make_plan(given.seed, given.tasks, given.disruptions, unheld=given.unheld, ordinary=not given.disasters_only)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--disruptions", type=int, default=60)
    parser.add_argument("--theirs", action="store_true", help="the provider's own operators, with the same plan")
    parser.add_argument("--unheld", action="store_true", help="also marks of tasks that no process holds")
    parser.add_argument("--disasters-only", action="store_true", help="nothing of ordinary life: no job fails, nobody edits")
    parser.add_argument("--slots", action="store_true", help="no disruptions: the worker slots that each way to wait holds")
    parser.add_argument("--home", type=Path, default=ROOT / ".soak", help="where Airflow writes; emptied first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, for a program")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process of Airflow's is left behind
    home = given.home
    shutil.rmtree(home, ignore_errors=True)
    plan = slots_plan() if given.slots else _plan(given)
    whose = "theirs" if given.theirs else "ours"
    say(f"seed {given.seed}: {len(plan.tasks)} tasks, {plan.size} disruptions, {whose}; starting Airflow")
    with running(Path(home), plan) as (airflow, cloud):
        if given.slots:
            conductor, tasks = soak(airflow, cloud, plan, "slots", say, job_seconds=(JOB_SECONDS, 0.0))
            print(report.slots_table(airflow.proxy, tasks))
            return 0
        conductor, tasks = soak(airflow, cloud, plan, whose, say)
    print(f"\n{report.struck(conductor)}\n\n{report.table({whose: report.figures(conductor, tasks)})}\n")
    found = [line for task in tasks for line in violations(task.ledger, task.jobs)]
    if given.json:
        kept = {"struck": dict(conductor.struck), "violations": found, **report.figures(conductor, tasks)}
        given.json.write_text(json.dumps(kept, indent=1))
    if given.theirs:
        return 0
    print("\n".join(found) or "every task as asked: one job at a time, no orphan, no lost result")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

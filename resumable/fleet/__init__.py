"""
Waiting for thousands of jobs: one poller for each service, account and connection, instead of one for each job.

`current_fleet` gives that of the running event loop, `Fleet.watch` waits for one job. The modules, from the inside out:
``budget``, how often a service is asked; ``asks`` and ``schedule``, about which jobs next and in which way; ``jobs``, what
follows from an answer; ``poller``, the tasks and threads; ``lookups`` and ``services``, how each service is asked about many
jobs at once.

May import: `resumable.errors`, `helpers`, `host`, `stop`, and of `jobs` what a job and its service are. May be imported by:
`cli`, and by `jobs`, `operators` inside their functions: a DAG file that is parsed waits for nothing.
"""

from resumable.fleet.lookups import ById, Judge, Listing, Lookup, Page, Reached, alone
from resumable.fleet.registry import Fleet, current_fleet
from resumable.fleet.waiting import Target

__all__ = ["ById", "Fleet", "Judge", "Listing", "Lookup", "Page", "Reached", "Target", "alone", "current_fleet"]

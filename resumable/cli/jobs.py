"""``jobs``: the external jobs that run now, over all DAGs."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from resumable import host
from resumable.cli import live as records
from resumable.cli.links import link_of
from resumable.cli.live import Live
from resumable.cli.output import DONE, TROUBLE, duration, print_json, print_table, say
from resumable.cli.together import seen_together
from resumable.jobs.decision import Observation
from resumable.jobs.record import JobHandle, JobRecord
from resumable.jobs.remote import JobAdapter, Remote

COLUMNS = ("task", "run", "service", "job", "state", "age", "try", "attempt", "watched by", "link")

LOOKERS = 8
"""Connections that are asked side by side; the jobs of one connection are asked for one after the other, with one client."""


def run(given: argparse.Namespace) -> int:
    records.require_readable()
    found = records.matching(records.all_live(in_short=True), dag=given.dag, service=given.service, older=given.older)
    chosen = [one for one in found if _is_asked_for(one, given)]
    chosen.sort(key=lambda one: -(one.age or 0.0))
    if given.look:
        look(chosen)
    if given.json:
        print_json([one.to_json() for one in chosen])
    else:
        _print(chosen, given.limit, has_looked=given.look)
    return TROUBLE if chosen and (given.orphans or given.in_doubt) else DONE


def _is_asked_for(one: Live, given: argparse.Namespace) -> bool:
    if not (given.orphans or given.in_doubt):
        return True
    return (given.orphans and one.is_orphan) or (given.in_doubt and one.is_in_doubt)


def _print(chosen: Sequence[Live], limit: int, *, has_looked: bool) -> None:
    shown = chosen if limit <= 0 else chosen[:limit]
    columns = (*COLUMNS, "seen") if has_looked else COLUMNS
    if shown:
        print_table(columns, (_cells(one, has_looked=has_looked) for one in shown))
    orphans, in_doubt = sum(one.is_orphan for one in chosen), sum(one.is_in_doubt for one in chosen)
    unreadable = sum(one.record is None for one in chosen)
    more = f", the oldest {len(shown)} are shown (--limit 0: all)" if len(shown) < len(chosen) else ""
    bad = f", {unreadable} unreadable" if unreadable else ""
    say(f"{len(chosen)} live, {orphans} run for nobody, {in_doubt} in doubt{bad}{more}")


def _cells(one: Live, *, has_looked: bool) -> tuple[Any, ...]:
    record = one.record
    tries = (record.try_number, record.attempt) if record else ("", "")
    link = (link_of(record.handle) if record else None) or ""
    cells = (
        one.task,
        one.run_id,
        one.service,
        one.job.removeprefix(f"{one.service} "),
        one.state,
        duration(one.age),
        *tries,
        one.watcher,
        link,
    )
    return (*cells, one.seen) if has_looked else cells


def look(chosen: Sequence[Live]) -> None:
    """Ask the services for the states of the jobs: those of one connection by one client, several connections at a time."""
    with ThreadPoolExecutor(LOOKERS) as pool:
        list(pool.map(_look_through_one, by_connection(chosen)))


def by_connection(chosen: Iterable[Live]) -> list[list[Live]]:
    """Those whose job is known, by the connection of each."""
    by_reach: dict[str, list[Live]] = {}
    for one in chosen:
        if one.record is not None and one.record.handle is not None:
            reach = json.dumps([one.record.reach, host.team_of(one.kept.row.dag_id)], sort_keys=True, default=repr)
            by_reach.setdefault(reach, []).append(one)
    return list(by_reach.values())


def look_at(one: Live) -> Observation | None:
    """One look at the job; None, and `Live.seen` says why, if there is no way to it from here."""
    try:
        with adapter_for(one) as adapter:
            return None if adapter is None else _observed(adapter, one)
    except Exception as e:  # somebody's operator or connection may raise anything
        one.seen = f"cannot be looked at: {type(e).__name__}: {e}"[:120]
        return None


def _look_through_one(chosen: Sequence[Live]) -> None:
    try:
        with adapter_for(chosen[0]) as adapter:
            if adapter is None:
                for one in chosen:
                    one.seen = "no way to it from here"
            else:
                _look_by(adapter, chosen)
    except Exception as e:
        for one in chosen:
            one.seen = one.seen or f"cannot be looked at: {type(e).__name__}"


def _look_by(adapter: JobAdapter, chosen: Sequence[Live]) -> None:
    """By the calls that take many jobs, then one by one those of whom these say nothing."""
    mismatches: dict[str, Observation | None] = {}
    here: list[tuple[Live, JobHandle]] = []
    for one in chosen:
        assert one.record is not None
        assert one.record.handle is not None
        place = json.dumps(dict(one.record.handle.place), sort_keys=True)
        if place not in mismatches:  # it may take a request
            mismatches[place] = _mismatch(adapter, one.record)
        if (moved := mismatches[place]) is not None:
            one.seen = str(moved)
        else:
            here.append((one, one.record.handle))
    found = seen_together(adapter, [handle for _, handle in here])
    for i, (one, handle) in enumerate(here):
        one.seen = str(found[i]) if i in found else _seen(adapter, handle)


@contextmanager
def adapter_for(one: Live) -> Iterator[JobAdapter | None]:
    from resumable.cleanup.reach import adapter_of, connection_names

    reach = one.record.reach if one.record else None
    with host.connections_of(one.kept.row.dag_id, connection_names(reach)):
        adapter = adapter_of(reach)
        if adapter is None:
            one.seen = "no way to it from here"
        yield adapter


def _seen(adapter: JobAdapter, handle: JobHandle) -> str:
    try:
        return str(adapter.observe(handle))
    except Exception as e:
        return f"cannot be seen: {type(e).__name__}: {e}"[:120]


def _observed(adapter: JobAdapter, one: Live) -> Observation:
    assert one.record is not None
    assert one.record.handle is not None
    return _mismatch(adapter, one.record) or adapter.observe(one.record.handle)


def _mismatch(adapter: JobAdapter, record: JobRecord) -> Observation | None:
    remote = Remote(adapter, log=logging.getLogger("resumable"), clock=time.time, sleep=time.sleep)
    return remote.location_mismatch(record)

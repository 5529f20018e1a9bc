"""Looks at many jobs of one connection: by the calls of their service that take many, where it has such."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from resumable.fleet.lookups import Lookup, Place
from resumable.jobs.decision import Observation
from resumable.jobs.record import JobHandle

_log = logging.getLogger("resumable")


def seen_together(service: Any, handles: Sequence[JobHandle]) -> dict[int, Observation]:
    """
    What calls about many jobs say of them, by their position. One that is not in it has to be looked at by itself: it is not
    listed, its service has no such call, or refuses it.

    Never more calls than jobs are made, and an error is told in the log alone.
    """
    found: dict[int, Observation] = {}
    try:
        for call, asked in calls_of(service, handles):
            found |= {asked[i]: seen for i, seen in call().items()}
    except Exception as e:  # what the service refuses for many it may well allow for one
        _log.info("resumable: jobs of %s are looked at one by one: %r", service.service, e)
    return found


def calls_of(
    service: Any, handles: Sequence[JobHandle], least: int = 2
) -> Iterator[tuple[Callable[[], Mapping[int, Observation]], list[int]]]:
    """
    Calls about at least so many of the jobs: each returns what was seen, by the position among those that it is about, which are
    told beside it.
    """
    if len(handles) < least or not hasattr(service, "lookup"):
        return
    lookup: Lookup = service.lookup(handles[0])
    if lookup.by_id is None and lookup.listing is None:
        return
    groups: dict[Hashable, list[int]] = {}
    for i, handle in enumerate(handles):
        if (group := lookup.group(handle)) is not None:
            groups.setdefault(group, []).append(i)
    for members in groups.values():
        for asked in _portions(lookup, handles, members):
            some = [handles[i] for i in asked]
            if lookup.by_id is not None:
                yield partial(lookup.by_id.ask, service.hook, some, _placed(service)), asked
            elif len(some) >= least:
                yield partial(_listed, lookup, service, some), asked


def _placed(service: Any) -> Place:
    return lambda _, word: service.classify(word)


def _portions(lookup: Lookup, handles: Sequence[JobHandle], members: Sequence[int]) -> Iterator[list[int]]:
    """As many as one call takes; of a list, all."""
    if lookup.by_id is None:
        yield list(members)
        return
    portion: list[int] = []
    size = 0
    for i in members:
        ids = lookup.ids(handles[i])
        if ids > lookup.by_id.size:
            continue
        if portion and size + ids > lookup.by_id.size:
            yield portion
            portion, size = [], 0
        portion, size = [*portion, i], size + ids
    if portion:
        yield portion


def _listed(lookup: Lookup, service: Any, handles: Sequence[JobHandle]) -> dict[int, Observation]:
    assert lookup.listing is not None
    found: dict[int, Observation] = {}
    cursor = None
    for _ in handles:
        page = lookup.listing.read(service.hook, handles, _placed(service), cursor)
        found |= page.seen
        cursor = page.following
        if cursor is None or len(found) == len(handles):
            break
    return found

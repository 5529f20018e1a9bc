"""
The mark that all runs share: read, checked to be this task's alone, moved, and written against other runs.

Here belongs what is done with the shared record; what a run reads is `run`'s, and what follows from a mark `intervals`'.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from resumable import host
from resumable.current_task import CurrentTask
from resumable.errors import ConfigurationError, StateStoreError, SupersededError
from resumable.identity import TaskIdentity
from resumable.stores.base import retried
from resumable.stores.owned import OwnedValue
from resumable.watermark.intervals import KEY, VERSION, Mark, Proposal

if TYPE_CHECKING:
    from resumable.watermark.mark import Watermark

MAX_LOOKS = 6
"""How often a change of the mark is looked for, and written if it is not there, while other runs write over it."""

HEADER = 300
"""Bytes that a record needs besides what is in it."""

_log = logging.getLogger("resumable")


class SharedMark:
    """
    A watermark's record in the asset's state store or in an Airflow Variable, as one task instance uses it.

    Args:
        watermark: whose mark it is.
        task: the running one.
        identity: of the task instance, as Airflow is asked for its state.
    """

    def __init__(self, watermark: Watermark, task: CurrentTask, identity: TaskIdentity) -> None:
        self.name, self.kind = watermark.name, watermark.kind
        self._watermark, self._task, self._identity = watermark, task, identity
        self._beside: int | None = None
        self._proposes = False

    def load(self) -> Mark | None:
        """The mark, None if there is none yet."""
        data = self._record().load()
        return None if data is None else Mark.from_json(data, self.kind)

    def open(self) -> Mark:
        """
        The mark where a new interval begins: this task's, with what earlier runs have earned since.

        Raises:
            ConfigurationError: another task moves it too.
        """
        begun = self._load_or_begin()
        self.check_alone(begun)
        self._beside = begun.opened_beside(self._identity)
        if self._beside is None and self._identity.map_index >= 0 and self._taken(begun) != begun:
            begun = self._update(self._taken, begun)
        return self._committed(begun)

    def take_back(self) -> None:
        """What this task instance has proposed and not earned yet counts no more."""
        mark = self.load()
        if mark is not None and mark.without(self._identity) != mark:
            self._update(lambda now: now.without(self._identity), mark.without(self._identity))

    def propose(self, proposal: Proposal) -> bool:
        """Note what a run has done; returns whether it moves the mark once the run has succeeded."""
        self._proposes = True

        def add(mark: Mark) -> Mark:
            mark = self._taken(mark)
            is_past = mark.value >= proposal.until and proposal.mark < proposal.until
            # Also what moves nothing any more is noted, for the tasks of the run that follow.
            noted = replace(proposal, is_settled=is_past)
            return mark if mark.proposal_of(proposal.task) == noted else mark.proposing(noted)

        mark = self._update(add, Mark(proposal.mark, owner=self._owner))
        return bool(mark.value < proposal.until)

    def check_alone(self, mark: Mark) -> None:
        """Refuse a mark that another task moves too: what one of them reads, or fails to read, would be skipped by the other."""
        if self._watermark.shared:
            return
        index = mark.mapped_beside(self._identity)
        if index is None and self._proposes:
            index = self._beside
        if index is not None:
            raise ConfigurationError(
                f"Watermark {self.name}: the mapped tasks {index} and {self._identity.map_index} of this run share the "
                "mark, and what one of them fails to read would be skipped when another succeeds. The mark is not moved by this "
                'one. Give each a name of its own, e.g. Watermark(f"orders-{shop}", ...).'
            )
        other = mark.other_owner(self._identity)
        if other is not None:
            raise ConfigurationError(
                f"Watermark {self.name}: the mark is of task {'.'.join(other)}, and {'.'.join(self._names)} opens it too: each "
                "would skip what the other has read. Nothing was read, the mark stays. Give this one a name of its own; or "
                "moves=False, to work on what the other has read in this run; or both shared=True, if they read the same rows. "
                "If the task was renamed, take its old name out of the mark's record."
            )

    def _load_or_begin(self) -> Mark:
        mark = self.load()
        if mark is not None:
            return mark
        start = self._watermark.start
        _log.warning("resumable: watermark %s: there is no mark yet; it begins at %s", self.name, start)
        # that there is none may be believed after a write only
        return self._update(lambda mark: mark, Mark(start, owner=self._owner))

    @property
    def _names(self) -> tuple[str, str]:
        return self._identity.dag_id, self._identity.task_id

    @property
    def _owner(self) -> tuple[str, str] | None:
        return None if self._watermark.shared else self._names

    def _taken(self, mark: Mark) -> Mark:
        """The mark as this task's: of mapped ones the first that opens it in a run. Raises: ConfigurationError."""
        self.check_alone(mark)
        if self._watermark.shared:
            return replace(mark, owner=None, opened=None)
        if self._identity.map_index >= 0 and mark.opened_beside(self._identity) is None:
            mark = replace(mark, opened=(self._identity.part, self._identity.map_index))
        return replace(mark, owner=self._owner)

    def _committed(self, mark: Mark) -> Mark:
        """The mark with what earlier runs have earned since, kept at once: one of them may be cleared before this one ends."""
        waiting = [p.task for p in mark.open_proposals]
        if not waiting:
            return mark
        done = retried(
            lambda: host.succeeded(self._task.context, waiting),
            "The states of the runs that worked before this one could not be learned",
            "Nothing was read, the mark stays.",
        )
        committed = mark.committed(done)
        if committed.value == mark.value:
            return mark
        _log.info("resumable: watermark %s moved from %s to %s", self.name, mark.value, committed.value)
        return self._update(lambda now: now.committed(done), committed)

    def _update(self, change: Callable[[Mark], Mark], if_none: Mark) -> Mark:
        """
        Read, change, write, until the change is seen to be kept.

        There is no compare-and-set. What another run writes between this one's last look and its write is lost, unless that run
        looks once more after this write, as every run does. What gets lost all the same is a proposal or a step of the mark: the
        next run then reads rows again; it never skips any.

        Raises:
            StateStoreError: other runs wrote over it every time.
        """
        for _ in range(MAX_LOOKS):
            record = self._record()
            data = record.load()
            mark = if_none if data is None else Mark.from_json(data, self.kind)
            changed = change(mark).fitting(self.kind, host.value_limit() - HEADER)
            if changed == mark and data is not None:
                return mark
            with suppress(SupersededError):  # another run wrote in between
                record.save(changed.to_json(self.kind))
        raise StateStoreError(
            f"Watermark {self.name}: other runs wrote over the mark {MAX_LOOKS} times while this one wrote it. Give "
            "the task max_active_tis_per_dag=1.",
            next_try="is given the same interval",
        )

    def _record(self) -> OwnedValue:
        context, asset = self._task.context, self._watermark.asset
        store = host.task_variable_store(context) if asset is None else host.asset_state_store(context, asset)
        write = uuid.uuid4().hex[:12]  # a new one for each write: what one run wrote twice are two values
        return OwnedValue(store, KEY + self.name, f"watermark {self.name!r}", owner=write, version=VERSION)

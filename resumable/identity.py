"""Who is asking: the task instance, its generation, the token of a submission."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Relation(Enum):
    """How the generation of a record relates to the one of this attempt."""

    SAME = "same"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Generation:
    """
    What a task can see of the clears of its task instance.

    No single number tells a retry from a clear: ``max_tries`` moves with every clear of a task that was not running, unless
    ``retries`` was edited; ``start_date`` of the run moves when a finished run is cleared or made anew; ``clear_number``
    moves with those and, from Airflow 3.2 on, with a clear of *any* task of the run.
    """

    max_tries: int
    clear_number: int | None = None
    run_started: str | None = None
    retries: int | None = None
    region: str | None = None
    """
    What Airflow 3.4 calls the place of mapped tasks and of the iterations of a task loop: a hexadecimal id, None outside of both.
    A clear that has part of a loop made anew moves it.
    """

    def relation_to(self, earlier: Generation) -> Relation:
        """
        Whether a clear lies between ``earlier`` (a record's) and this generation.

        A ``clear_number`` that moved alone is taken for a sibling's clear: a job that runs is then reattached to, and no
        second one starts beside it. (A clear of the task itself whose worker was SIGKILLed looks the same.)
        """
        moved = (self.max_tries, self.run_started, self.region) != (earlier.max_tries, earlier.run_started, earlier.region)
        return Relation.CLEARED if moved else Relation.SAME

    def is_of_later_run(self, other: Generation) -> bool:
        """Whether the DAG run was started again, or made anew, after ``other`` (times in ISO format and UTC sort as text)."""
        return (self.run_started or "") > (other.run_started or "")

    def to_json(self) -> dict[str, Any]:
        return {
            "max_tries": self.max_tries,
            "clear_number": self.clear_number,
            "run_started": self.run_started,
            **{name: value for name in ("retries", "region") if (value := getattr(self, name)) is not None},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Generation:
        """Raises: KeyError, TypeError, ValueError, AttributeError: it is damaged. No damage may look like a clear."""
        known = cls(int(data["max_tries"]), data["clear_number"], data["run_started"], data.get("retries"), data.get("region"))
        for kind, values in ((int, (known.clear_number, known.retries)), (str, (known.run_started, known.region))):
            if wrong := [value for value in values if not isinstance(value, kind | None)]:
                raise TypeError(f"{wrong[0]!r:.100} in the generation is no {kind.__name__}")
        return known


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """
    One task instance, whatever its try.

    Attributes:
        map_index: of a mapped task, -1 of any other.
        namespace: ``[resumable] namespace``.
        iteration: of a task inside a task loop (Airflow 3.4), from 0 on; -1 of any other.
        region: of a task inside a loop: Airflow's id of the piece of the loop that it is in. See `Generation.region`.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    namespace: str = ""
    iteration: int = -1
    region: str = ""

    def token(self, generation: Generation, submission: int) -> str:
        """
        The idempotency token of a submission: 48 lower-case hex characters, fit for every service's own field.

        Never random and never dependent on the try, so that whoever retries can compute it again without being told.
        """
        parts = [
            self.namespace,
            self.dag_id,
            self.run_id,
            self.task_id,
            self.map_index,
            generation.max_tries,
            generation.clear_number,
            generation.run_started,
            submission,
            *([self.iteration, self.region] if self.is_in_loop else []),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:48]

    @property
    def ids(self) -> dict[str, Any]:
        """What says which task instance it is, as JSON has it; what only loops have, for those inside one only."""
        names = ("dag_id", "run_id", "task_id", "map_index", *(("iteration", "region") if self.is_in_loop else ()))
        return {name: getattr(self, name) for name in names}

    @property
    def is_in_loop(self) -> bool:
        return self.iteration >= 0

    @property
    def part(self) -> str:
        """The DAG run, in a loop with the iteration: what mapped tasks may run beside each other in."""
        return f"{self.run_id} iteration {self.iteration}" if self.is_in_loop else self.run_id

    def is_mapped_beside(self, other: TaskIdentity) -> bool:
        """Whether both are of one mapped task in one DAG run, and in one iteration of a loop."""
        same = (self.dag_id, self.part, self.task_id) == (other.dag_id, other.part, other.task_id)
        return same and self.map_index != other.map_index

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{mapped} {self.part}"

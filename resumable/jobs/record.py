"""What is kept in task state about one job: small, versioned, readable by a person in the Airflow UI."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from resumable.errors import InvalidHandleError, RecordError
from resumable.identity import Generation
from resumable.jobs import history as past
from resumable.jobs.spec import Spec

VERSION = 1
"""Schema version of a record. A reader accepts its own and every older one, and refuses a newer one."""

KEY = "resumable"
"""The one key of task state that a job's record lives under."""

MAX_BYTES = 2000
"""What a record stays under, so that a person can read it. Only hundreds of EMR step ids in one handle go beyond, and, while its
submit is unanswered, the request, which is packed then."""

MAX_HANDLE_BYTES = 8000
"""Ceiling of a handle's ids in JSON: 256 EMR steps, the most that one request takes, fit; a payload does not."""

MOST_UNPACKED = 16 * 1024 * 1024
"""Bytes that a packed request may unpack to: what is read was perhaps not written by us."""

HOW = "JSON, zlib, base64"

Path = tuple[str | int, ...]


class Outcome(str, Enum):
    """How a job ended, once that was seen."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    GONE = "gone"  # perhaps before its id was known
    CANCELLED = "cancelled"
    REJECTED = "rejected"  # the service refused the submit: there never was a job


@dataclass(frozen=True, slots=True)
class JobHandle:
    """
    What identifies a job for ever.

    Args:
        service: short name of the service, e.g. ``databricks``.
        ids: the id(s), a JSON value that is neither None nor empty; 0 is an id.
        place: where it lives (workspace, account, region ...); an id means nothing elsewhere.

    Raises:
        InvalidHandleError: the ids are None, empty, no JSON, or too large to keep.
    """

    service: str
    ids: Any
    place: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ids is None or (not self.ids and isinstance(self.ids, str | list | tuple | dict)):
            raise InvalidHandleError(_bad_id(self.service, self.ids, "is no id"))
        try:
            from resumable.stores.base import json_text  # which keeps records

            text = json_text(json.loads(json.dumps(self.ids)))  # what a later attempt has: a list for a tuple
        except (TypeError, ValueError, RecursionError):
            raise InvalidHandleError(_bad_id(self.service, self.ids, "cannot be kept as JSON")) from None
        if len(text) > MAX_HANDLE_BYTES:
            raise InvalidHandleError(_bad_id(self.service, self.ids, f"is too large ({len(text)} bytes)"))
        object.__setattr__(self, "ids", json.loads(text))

    def __str__(self) -> str:
        ids = self.ids
        if isinstance(ids, Mapping):
            ids = " ".join(f"{k}={_short(v)}" for k, v in ids.items())
        where = " ".join(str(v) for v in self.place.values())
        return f"{self.service} {_short(ids)}" + (f" at {where}" if where else "")


def _short_ids(ids: Any) -> str:
    return " ".join(_short(one) for one in ids.values()) if isinstance(ids, Mapping) else _short(ids)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > 3:
        return f"[{value[0]}, … {len(value)} in all]"
    return str(value)


def _bad_id(service: str, ids: Any, why: str) -> str:
    return (
        f"The submit to {service} returned {ids!r}, which {why}. A job may be running there, but it cannot be "
        "watched. Make submit_job return the job's id (0 is one; None and empty ones are not), look the job up in "
        "the service, and clear the task."
    )


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job of one task instance, from the intent to submit it to its end."""

    service: str
    token: str
    generation: Generation
    submission: int
    owner: str
    attempt: int
    intended_at: float
    spec: Spec | None = None
    params: Any = None
    """The request of a submit that is not answered, without the values at ``omitted``; None: not kept."""
    omitted: tuple[Path, ...] = ()
    """Where the request has secrets, which are not kept."""
    digest: str | None = None
    """Of a request that is too large to keep: whether another is the same."""
    is_refused: bool = False
    """The service has refused to repeat the submit, which says nothing of the first."""
    place: Mapping[str, str] = field(default_factory=dict)
    try_number: int = 0
    first_look: int | None = None
    """The attempt by which the try that owns the record began; kept where the task waits by being rescheduled."""
    replaces: Any = None
    handle: JobHandle | None = None
    submitted_at: float | None = None
    outcome: Outcome | None = None
    closed_at: float | None = None
    left: str | None = None
    """Why the task left its job running on purpose; None while it means to come back to it."""
    reach: Mapping[str, Any] | None = None
    """How a process that is not the task reaches the job: the operator's class and its connection, see `resumable.sweep`."""
    replaced: tuple[str, ...] = ()
    """Marks of the specs that earlier jobs had, before edits: `resumable.jobs.spec.edited_fields`."""
    cancel_if_lost: bool = False
    """The job is to be cancelled if the last try is lost (``on_final_failure="cancel"``)."""
    stopping: str | None = None
    """Why an attempt asked the service to stop the job, before it asked; the next job waits until this one has stopped."""
    failing_try: int | None = None
    """The try that failed because the job was failing while parts of it still ran; the record stays open for those."""
    decided_try: int | None = None
    """The try that last decided to go on with this job, where a later one has only taken the record up so far."""
    ended_as: str | None = None
    """The service's words for the end, where the operator's own code makes something of them that a success does not say."""
    forgotten_by: str | None = None
    """Who had the job forgotten, by the command: the next attempt submits another one."""
    history: tuple[past.Event, ...] = field(default=(), compare=False)
    """What happened so far, to the earlier jobs of the task as well: for people."""

    @property
    def decided_in(self) -> int:
        """The try that submitted the job or, later, decided to go on with it: within it, what the task is for does not change."""
        return self.try_number if self.decided_try is None else self.decided_try

    @property
    def in_doubt(self) -> bool:
        """A submit was announced and its answer never kept: there may be a job under ``token``, or none."""
        return self.handle is None and self.outcome is None

    def with_handle(self, handle: JobHandle, at: float) -> JobRecord:
        return replace(self._answered(), handle=handle, submitted_at=at)

    def closed(self, outcome: Outcome, at: float) -> JobRecord:
        return replace(self._answered(), outcome=outcome, closed_at=at)

    def submitted(self, handle: JobHandle, at: float, note: object = "") -> JobRecord:
        """`with_handle`, which the history tells."""
        return self.with_handle(handle, at).noting(past.SUBMITTED, at, f"{_short_ids(handle.ids)} {note}")

    def ended(self, outcome: Outcome, at: float, note: object = "") -> JobRecord:
        """`closed`, which the history tells; ``note``: why, or by whom."""
        what = past.STOPPED if self.outcome is Outcome.CANCELLED else outcome.value
        return self.closed(outcome, at).noting(what, at, note)

    def forgotten(self, who: str, at: float) -> JobRecord:
        """Closed so that the next attempt submits another job, whatever became of this one."""
        closed = self.closed(Outcome.REJECTED, at)
        return replace(closed, submission=self.submission + 1, forgotten_by=who).noting("forgotten by", at, who)

    def noting(self, what: str, at: float, note: object = "", *, try_number: int | None = None) -> JobRecord:
        """The record with one more event in its history."""
        number = self.try_number if try_number is None else try_number
        return replace(self, history=past.extended(self.history, at, what, number, note))

    def _answered(self) -> JobRecord:
        return replace(self, params=None, omitted=(), digest=None, is_refused=False)

    def to_json(self) -> dict[str, Any]:
        """
        The record as Airflow's task state keeps it.

        A small request without secrets stands under ``params``, as in the first release, which sends it as it is. Any other is
        under ``request``, which that release does not know: it then sends the request of its own try.
        """
        data: dict[str, Any] = {
            "version": VERSION,
            "service": self.service,
            "job": None,
            "state": self.outcome.value if self.outcome else ("submitted" if self.handle else "submitting"),
            "token": self.token,
            "submission": self.submission,
            "generation": self.generation.to_json(),
            "attempt": self.attempt,
            "try": self.try_number,
            "owner": self.owner,
            "spec": None,  # 0.1.0 kept one hash here, and takes another one for an edit
            "intended_at": _iso(self.intended_at),
        }
        data["place"] = dict(self.handle.place if self.handle else self.place)
        if self.handle:
            data["job"] = self.handle.ids
        for name in ("submitted_at", "closed_at"):
            if (at := getattr(self, name)) is not None:
                data[name] = _iso(at)
        if self.replaces is not None:
            data["replaces"] = self.replaces
        for name in (
            "left",
            "reach",
            "cancel_if_lost",
            "stopping",
            "failing_try",
            "decided_try",
            "first_look",
            "forgotten_by",
            "ended_as",
        ):
            if value := getattr(self, name):
                data[name] = dict(value) if isinstance(value, Mapping) else value
        if self.replaced:
            data["replaced"] = list(self.replaced)
        if self.is_refused:
            data["is_refused"] = True
        request = self._request(data)
        data.update({"params": self.params} if "params" in request else {})
        if self.spec is not None:
            data["fingerprint"] = self.spec.to_json(MAX_BYTES - len(json.dumps(data)) - len(', "fingerprint": '))
        return data | self._history(data) | request

    def _history(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """In the room that the rest leaves: no decision depends on it."""
        kept = past.to_json(self.history, MAX_BYTES - len(json.dumps(data)) - len(', "history": ')) if self.history else []
        return {"history": kept} if kept else {}

    def _request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        if self.params is None:
            return {} if self.digest is None else {"request": {"digest": self.digest}}
        smallest = {} if self.spec is None else {"fingerprint": self.spec.to_json(0)}
        if not self.omitted and _fits({**data, **smallest, "params": self.params}):
            return {"params": self.params}
        try:
            return {"request": packed(self.params, self.omitted)}
        except TypeError:  # what JSON cannot carry
            return {}

    @classmethod
    def from_json(cls, data: Any) -> JobRecord:
        """
        Read a record of this or an older release.

        Raises:
            RecordError: a newer release wrote it, or it is damaged.
        """
        version = data.get("version") if isinstance(data, Mapping) else None
        if type(version) is int and version > VERSION:
            raise RecordError(
                f"The record in task state has version {version}, this airflow-resumable reads up to {VERSION}: a newer "
                "release wrote it. Nothing was submitted and the job is left alone. Upgrade airflow-resumable on "
                f"this worker, or delete the task state key {KEY!r} of this task instance to start over. Record: {data}"
            )
        try:
            state, ids = _checked(data)
            params, omitted, digest = _request_of(data)
            place = dict(data.get("place") or {})
            return cls(
                service=str(data["service"]),
                token=str(data["token"]),
                generation=Generation.from_json(data["generation"]),
                submission=int(data["submission"]),
                owner=str(data["owner"]),
                attempt=int(data["attempt"]),
                try_number=int(data.get("try", 0)),
                first_look=None if data.get("first_look") is None else int(data["first_look"]),
                replaces=data.get("replaces"),
                intended_at=_timestamp(data["intended_at"]),
                spec=_spec_of(data),
                params=params,
                omitted=omitted,
                digest=digest,
                is_refused=data.get("is_refused") is True,
                place=place,
                handle=None if ids is None else JobHandle(str(data["service"]), ids, place),
                submitted_at=_timestamp(data.get("submitted_at")),
                outcome=None if state in ("submitting", "submitted") else Outcome(state),
                closed_at=_timestamp(data.get("closed_at")),
                left=data.get("left"),
                reach=data.get("reach"),
                replaced=tuple(str(mark) for mark in data.get("replaced") or ()),
                cancel_if_lost=bool(data.get("cancel_if_lost")),
                stopping=data.get("stopping"),
                failing_try=data.get("failing_try"),
                decided_try=data.get("decided_try"),
                forgotten_by=data.get("forgotten_by"),
                ended_as=data.get("ended_as"),
                history=past.from_json(data.get("history")),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, InvalidHandleError) as e:
            raise RecordError(
                f"The record in task state cannot be read ({type(e).__name__}: {e}). Nothing was submitted and the job, if "
                f"there is one, is left alone. Look the job up with what the record says, then delete the task state "
                f"key {KEY!r} of this task instance to start over. Record: {data!r}"
            ) from e


def _spec_of(data: Mapping[str, Any]) -> Spec | None:
    if "fingerprint" in data:
        return Spec.from_json(data["fingerprint"])
    return None if data.get("spec") is None else Spec()  # of 0.1.0: not comparable


def _fits(data: Mapping[str, Any]) -> bool:
    try:
        return len(json.dumps(data)) <= MAX_BYTES
    except (TypeError, ValueError):  # parameters that JSON cannot carry
        return False


def _request_of(data: Mapping[str, Any]) -> tuple[Any, tuple[Path, ...], str | None]:
    request = data.get("request")
    if not isinstance(request, Mapping):
        return data.get("params"), (), None
    if "packed" not in request:
        return None, (), str(request["digest"])
    return (*unpacked(request), None)


_OPTIONAL: dict[str, type] = {
    "reach": Mapping,
    **dict.fromkeys(("left", "stopping", "ended_as", "forgotten_by"), str),
    **dict.fromkeys(("failing_try", "decided_try"), int),
}
"""Fields that are taken over as they stand."""


def _checked(data: Mapping[str, Any]) -> tuple[str, Any]:
    """State and job of something that is meant to be a record of this version."""
    if type(data["version"]) is not int:
        raise ValueError(f"version {data['version']!r}")
    for name in ("service", "token", "owner", "intended_at"):
        if not isinstance(data[name], str):
            raise TypeError(f"{name} {data[name]!r}")
    for name, kind in _OPTIONAL.items():
        if not isinstance(data.get(name), kind | None):
            raise TypeError(f"{name} {data[name]!r:.100}")
    state, ids = data["state"], data["job"]
    if ids is None and state not in ("submitting", Outcome.REJECTED.value, Outcome.GONE.value):
        raise ValueError(f"state {state!r} without a job")
    return state, ids


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")


def _timestamp(text: str | None) -> Any:
    return None if text is None else datetime.fromisoformat(text).timestamp()


# -- the request of a submit that is not answered -----------------------------------------------------------------------------


def packed(kept: Any, omitted: tuple[Path, ...]) -> dict[str, Any]:
    """As it stands in the record."""
    text = base64.b64encode(zlib.compress(json.dumps(kept).encode(), 9)).decode()
    return {"how": HOW, "packed": text, **({"omitted": [list(path) for path in omitted]} if omitted else {})}


def unpacked(data: Mapping[str, Any]) -> tuple[Any, tuple[Path, ...]]:
    """
    The reverse of `packed`.

    Raises:
        ValueError: it is none.
    """
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(base64.b64decode(data["packed"], validate=True), MOST_UNPACKED)
        if not reader.eof:
            raise ValueError("the packed request is cut short, or too large")
        return json.loads(text), tuple(tuple(path) for path in data.get("omitted", ()))
    except (zlib.error, TypeError) as e:
        raise ValueError(f"the packed request cannot be read: {e}") from e

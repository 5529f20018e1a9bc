"""What was edited, and what has only moved, from one spec of a task to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from resumable.jobs.spec.codes import ALL, ALL_NAMED, UNKNOWN_CODE, by_value, digest, has_literal, is_edit
from resumable.jobs.spec.fingerprint import Spec

KEPT_REPLACED = 12
"""Marks of replaced specs that a record keeps: up to three for each."""


def edited_fields(earlier: Spec | None, now: Spec | None, replaced: Iterable[str] = ()) -> tuple[str, ...]:
    """
    The names of what the author edited, or of what upstream gave a mapped task anew, from one spec of a task to another.

    A field counts if the text of the DAG file differs, and what the author wrote of the field, and the value itself: an edit
    elsewhere in the file may happen to make a constant of what was computed. A field that one side does not know (it was at its
    default there, or another release of the operator has it) counts if the author wrote some of it. None counts where the file
    still says the same of where its value comes from.

    Args:
        earlier: the job's.
        now: this attempt's.
        replaced: `Spec.marks` of specs that the job's one has replaced: a worker with an older DAG file asks with one of them.
    """
    if earlier is None or now is None:
        return ()
    replaced = frozenset(replaced)
    names: list[str] = []
    if earlier.text and now.text and earlier.text != now.text and not {now.text, now.literals} & replaced:
        is_folded = ALL in earlier.fields or ALL in now.fields
        found = _edited_folded(earlier, now) if is_folded else _edited(earlier.fields, now.fields)
        names += [name for name in found if not _is_of_the_same_origin(name.partition(".")[0], earlier, now)]
    if now.items and digest(dict(now.items)) not in replaced:
        both = earlier.items.keys() & now.items.keys()
        names += [f"{name} (from upstream)" for name in sorted(both) if earlier.items[name] != now.items[name]]
    return tuple(names)


def _is_of_the_same_origin(name: str, earlier: Spec, now: Spec) -> bool:
    if ALL in earlier.origins or ALL in now.origins or name == ALL_NAMED:
        return bool(now.origin) and now.origin == earlier.origin
    return name in now.origins and now.origins[name] == earlier.origins.get(name)


def moved_fields(earlier: Spec | None, now: Spec | None) -> tuple[str, ...]:
    """The names of fields whose values differ, for a log line; of a dict, the entries that do."""
    if earlier is None or now is None or not (earlier.text and now.text):
        return ()
    if ALL in earlier.fields or ALL in now.fields:
        return (ALL_NAMED,) if by_value(earlier._folded) != by_value(now._folded) else ()
    moved = [name for name in sorted(earlier.fields.keys() | now.fields.keys()) if _has_moved(name, earlier.fields, now.fields)]
    return tuple(name for name in moved if not any(other.startswith(f"{name}.") for other in moved))


def _has_moved(name: str, earlier: Mapping[str, str], now: Mapping[str, str]) -> bool:
    one, other = earlier.get(name, ""), now.get(name, "")
    if UNKNOWN_CODE in (one, other) or ("." in name and not _are_split(name.partition(".")[0], earlier, now)):
        return False
    return by_value(one) != by_value(other)


def _are_split(name: str, *sides: Mapping[str, str]) -> bool:
    """Whether the entries of a dict are fingerprinted on all sides."""
    return all(any(known.startswith(f"{name}.") for known in side) for side in sides)


def replaced_marks(replaced: tuple[str, ...], earlier: Spec | None, now: Spec | None) -> tuple[str, ...]:
    """What a record keeps of replaced specs when a job of spec ``now`` follows on one of ``earlier``."""
    if earlier is None or now is None or not edited_fields(earlier, now, replaced):
        return replaced  # nothing was edited, or a worker with an older DAG file asks
    kept = [mark for mark in replaced if mark not in now.marks]
    return tuple([*kept, *sorted(earlier.marks - now.marks - set(kept))][-KEPT_REPLACED:])


def _edited(earlier: Mapping[str, str], now: Mapping[str, str], prefix: str = "") -> list[str]:
    """Of fields, or of the entries of the dict ``prefix``, those that were edited."""
    depth = prefix.count(".") + 1 if prefix else 0
    names = sorted(name for name in earlier.keys() | now.keys() if name.startswith(prefix) and (depth or "." not in name))
    edited: list[str] = []
    for name in names:
        one, other = earlier.get(name), now.get(name)
        if UNKNOWN_CODE in (one, other):
            continue
        if one is None or other is None:
            if has_literal(one or other or ""):
                edited.append(name)
        elif is_edit(one, other):
            if not depth and _are_split(name, earlier, now):
                edited += _edited(earlier, now, f"{name}.")
            else:
                edited.append(name)
    return edited


def _edited_folded(earlier: Spec, now: Spec) -> list[str]:
    one, other = earlier._folded, now._folded
    return [ALL_NAMED] if is_edit(one, other) else []

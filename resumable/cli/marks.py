"""``mark``: the marks of `resumable.Watermark`, shown, set, taken back."""

from __future__ import annotations

import argparse
import uuid
from datetime import datetime, timezone
from typing import Any

from resumable import host
from resumable.cli.output import DONE, TROUBLE, Refused, confirmed, print_json, print_table, say
from resumable.watermark import KEY
from resumable.watermark.values import ValueType


def show(given: argparse.Namespace) -> int:
    found = [mark for mark in host.beside().marks(KEY) if given.name is None or given.name in str(mark)]
    if given.json:
        print_json([{"name": str(mark), "whose": mark.whose, "value": mark.value} for mark in found])
        return DONE
    if not found:
        say("No mark of a watermark is kept." if given.name is None else f"No mark has {given.name!r} in its name.")
        return DONE
    print_table(("name", "whose", "type", "mark", "not committed yet"), (_cells(mark) for mark in found))
    return DONE


def _cells(mark: Any) -> tuple[Any, ...]:
    value = mark.value if isinstance(mark.value, dict) else {}
    owner, proposed = value.get("belongs_to"), value.get("proposed")
    if mark.asset_id is not None:
        whose = f"asset {mark.whose}"
    else:
        whose = f"{owner.get('dag', '?')}.{owner.get('task', '?')}" if isinstance(owner, dict) else "?"
    waiting = len(proposed) if isinstance(proposed, list) else 0
    return str(mark), whose, value.get("type", "?"), value.get("mark", "cannot be read"), waiting


def set_(given: argparse.Namespace) -> int:
    mark = _one(given.name)
    if not isinstance(mark.value, dict) or "type" not in mark.value:
        raise Refused(f"{mark} cannot be read. `mark reset` takes it away.")
    value = _of_type(mark.value["type"], given.value)
    before = mark.value.get("mark")
    what = (
        f"{mark} moves from {before} to {value}: rows up to there are not read by later runs, rows after it are, also those "
        "that were read before. What running tasks have read and not committed is dropped."
    )
    if not confirmed(what, yes=given.yes):
        return TROUBLE
    by = f"{host.beside().user()} at {datetime.now(timezone.utc).isoformat(timespec='seconds')}"
    changed = {**mark.value, "mark": value, "proposed": [], "owner": uuid.uuid4().hex[:12], "set_by": by}
    return _write(mark, changed)


def reset(given: argparse.Namespace) -> int:
    mark = _one(given.name)
    if not confirmed(f"{mark} is deleted: the next run begins at the start= of its Watermark.", yes=given.yes):
        return TROUBLE
    return _write(mark, None)


def _one(name: str) -> Any:
    found = [mark for mark in host.beside().marks(KEY) if str(mark) == name]
    if len(found) != 1:
        raise Refused(f"There is no mark {name!r}. `mark show` has the names.")
    return found[0]


def _of_type(names: Any, text: str) -> Any:
    """``text`` as the mark's record keeps it; a tuple as JSON list."""
    import json

    kind = ValueType(tuple(map(str, names)), is_tuple=True) if isinstance(names, list) else ValueType((str(names),))
    try:
        parts = json.loads(text) if kind.is_tuple else int(text) if kind.names == ("int",) else text
        return kind.to_json(kind.checked(kind.from_json(parts), "VALUE"))
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise Refused(f"{text!r} is not a valid {kind}: {e}") from None


def _write(mark: Any, value: Any) -> int:
    if not host.beside().write_mark(mark, value):
        raise Refused(f"{mark} has moved meanwhile. Nothing was done; look again.")
    say("Done.")
    return DONE

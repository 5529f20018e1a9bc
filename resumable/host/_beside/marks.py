"""The marks of watermarks, in the state of assets and in Variables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airflow.models import Variable
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update

from resumable import host
from resumable.host._database import Database


@dataclass(frozen=True, slots=True)
class Mark:
    """
    The mark of a `resumable.Watermark`.

    Attributes:
        whose: the asset, or the Variable that holds it.
        key: under which it stands there; of a Variable, its name.
        value: what is kept.
    """

    whose: str
    key: str
    value: Any
    asset_id: int | None = None

    def __str__(self) -> str:
        return f"{self.whose}:{self.key}" if self.asset_id is not None else self.key


def marks(prefix: str) -> list[Mark]:
    """All marks: keys that begin with ``prefix`` in the state of assets, and Variables of tasks."""
    found = [Mark("Variable", name, _json(text)) for name, text in Database().marks()]
    if not host.has_task_state():
        return found
    from airflow.models.asset import AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel as State

    with create_session() as session:
        query = select(AssetModel.name, AssetModel.id, State.key, State.value).join(AssetModel, AssetModel.id == State.asset_id)
        for name, asset_id, key, value in session.execute(query.where(State.key.startswith(prefix, autoescape=True))):
            found.append(Mark(name, key, _json(value), asset_id))
    return found


def write_mark(mark: Mark, value: Any) -> bool:
    """Put ``value`` in the place of what ``mark`` holds, None deletes it; False if it has moved meanwhile."""
    with create_session() as session:
        if mark.asset_id is None:
            variable = session.scalar(select(Variable).where(Variable.key == mark.key).with_for_update())
            if variable is None or _json(variable.val) != mark.value:
                return False
            if value is None:
                session.delete(variable)
            else:
                variable.set_val(json.dumps(value))
            return True
        from airflow.models.asset_state_store import AssetStateStoreModel as State

        which = (State.asset_id == mark.asset_id, State.key == mark.key)
        now = session.scalar(select(State.value).where(*which))
        if now is None or _json(now) != mark.value:
            return False
        unmoved = (*which, State.value == now)
        text = json.dumps(json.dumps(value)) if isinstance(json.loads(now), str) else json.dumps(value)
        change = delete(State).where(*unmoved) if value is None else update(State).where(*unmoved).values(value=text)
        done = session.execute(change)
        return bool(done.rowcount)


def _json(text: Any) -> Any:
    try:
        data = json.loads(text)
        return json.loads(data) if isinstance(data, str) else data
    except (TypeError, ValueError):
        return text

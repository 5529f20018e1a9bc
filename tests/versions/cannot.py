"""What Airflow itself keeps a version from doing: scenario, with or without its operator, to the reason. Found by the matrix."""

from __future__ import annotations

_UNTOLD = "a SIGTERM to the supervisor is passed on to nobody"
_DEFERRED = "a trigger is not told why it is stopped"

_EVICTIONS = {
    "an eviction leaves the job and uses no try not even with retries 0": _UNTOLD,
    "an eviction while the submit is in flight makes no second job": _UNTOLD,
}
_MARKS = {"a deferred task marked failed cancels its job once": _DEFERRED}

CANNOT: dict[str, dict[str, str]] = {
    "2.11": _MARKS,
    "3.0": {
        **_EVICTIONS,
        **_MARKS,
        "a clear while running stops the old job before the new one": "Airflow leaves the task in the state restarting for ever",
    },
    "3.1": {**_EVICTIONS, **_MARKS},
    "3.2": {**_EVICTIONS, **_MARKS},
    "3.3": {},
}

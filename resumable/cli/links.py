"""Where a person looks at a job: the service's own page, by what the record says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from resumable.jobs.record import JobHandle

_Page = Callable[[Mapping[str, Any], str], str | None]


def _aws(service: str, rest: str) -> _Page:
    def page(ids: Mapping[str, Any], region: str) -> str | None:
        try:
            path = rest.format(region=region, **{name: quote(str(value), safe=":") for name, value in ids.items()})
        except KeyError:
            return None
        return f"https://{region}.console.aws.amazon.com/{service}/home?region={region}#{path}" if region else None

    return page


_AWS: dict[str, tuple[_Page, ...]] = {
    "emr": (_aws("emr", "/clusterDetails/{cluster}"),),
    "glue": (_aws("gluestudio", "/job/{job}/run/{run}"),),
    "athena": (_aws("athena", "/query-editor/history/{query}"),),
    "batch": (_aws("batch", "jobs/detail/{job}"),),
    "sfn": (_aws("states", "/v2/executions/details/{execution}"),),
}


def link_of(handle: JobHandle | None) -> str | None:
    """The page of a job; None where the record does not say enough."""
    if handle is None or not isinstance(handle.ids, Mapping):
        return None
    if handle.service == "databricks":
        return _databricks(handle)
    region = str(handle.place.get("region") or "")
    return next((found for page in _AWS.get(handle.service, ()) if (found := page(handle.ids, region))), None)


def _databricks(handle: JobHandle) -> str | None:
    host, run = handle.place.get("workspace"), handle.ids.get("run_id")
    if not host or run is None:
        return None
    base = host if "://" in host else f"https://{host}"
    job = handle.ids.get("job_id")
    return f"{base}/jobs/{job}/runs/{run}" if job else f"{base}/jobs/runs/{run}"

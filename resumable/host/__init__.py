"""
The only package that knows Airflow and its versions: what a task may see and do there, under one name each, from 2.11 on.

Here belongs whatever needs Airflow's own modules, tables or configuration, except for the provider's operators, and for triggers
and listeners as classes. There is a module for each subject:

- of a task: `context` (which task instance, which start of it), `states`, `schedule`, `written` (what its author wrote),
  `stores` (which one it has), `access` (how it reaches what Airflow keeps), `ending`, `exceptions`, `signals`;
- of the deployment: `versions` (what this Airflow has), `config`, `servers` (beside the tasks), `secrets`, `metrics`;
- of operators and triggers as classes: `classes`.

Modules with an underscore are parts that only this package imports: `_two` and `_three` are the two Airflows as a task sees them,
`_database`, `_server` and `_beside` are their tables, `_rest` is the API.

All others write ``host.<name>``. So do the modules in here for each other's functions: thus there is one place at which a test
can replace what Airflow would say.

May import: `resumable.errors`, `identity`, `policy`, `stores`, of `jobs` the spec and the record's key, of `cleanup` the table's
rows. May be imported by anything. Airflow is imported inside the functions, because importing `resumable` must not import it.
"""

from __future__ import annotations

from resumable.host.access import (
    asset_state_rows,
    from_trigger,
    has_object_storage,
    object_storage_path,
    task_state_rows,
    variables,
)
from resumable.host.classes import (
    apply_defaults,
    base_operator,
    base_trigger,
    durable_by_default,
    execute_guard,
    is_mapped,
    map_over,
    provider_of,
    start_again_in_time,
)
from resumable.host.config import (
    ADOPTION,
    HAND_BACK,
    airflow_setting,
    configured_names,
    configured_policy,
    flag,
    hand_back_seconds,
    is_chosen,
    killed_task_cleanup_time,
    number,
    once_for_settings,
    origin_of,
    records_are_elsewhere,
    resolved_policy,
    say_once,
    setting,
    sweep_delay,
    value_limit,
    wrong_settings,
)
from resumable.host.context import (
    current_context,
    current_try_number,
    generation,
    given_context,
    is_run_by_airflow,
    kept_by_operator,
    may_be_cleared,
    may_have_lost_its_record,
    started_at,
    task_context,
    task_identity,
)
from resumable.host.ending import (
    after_success,
    at_end,
    hand_back,
    is_last_try,
    why_last_try,
)
from resumable.host.exceptions import (
    airflow_errors,
    deferral,
    final_errors,
    is_airflow_error,
    is_deferral,
    is_deferral_error,
    is_deferral_timeout,
    is_final,
    is_hand_back,
    is_not_found,
    is_out_of_time,
    is_skip,
    say_if_last,
    skip,
    task_timeout,
)
from resumable.host.metrics import (
    count,
    stats,
)
from resumable.host.schedule import (
    allows_runs_at_once,
    backfill_interval,
    dag_time_zone,
    is_inlet,
    is_sensor,
)
from resumable.host.secrets import (
    holds_secret,
    masked,
    redacted,
)
from resumable.host.servers import (
    be_a_server,
    beside,
    connections_of,
    dag_bag,
    database,
    database_url,
    deployment,
    has_dag_processor,
    is_server,
    lost_heartbeat_setting,
    parses_dag_files,
    plugin_names,
    task_state_place,
    team_of,
)
from resumable.host.signals import (
    end_stopped_task,
    request_lock,
    sigterm_calls,
    users_stop_grace,
)
from resumable.host.states import (
    DELETED,
    cancelled_triggers_may_ask,
    own_state,
    state_seen_by_trigger,
    succeeded,
    tells_triggers,
)
from resumable.host.stores import (
    asset_state_store,
    record_limit,
    require_store,
    state_store,
    task_variable_store,
    try_store,
)
from resumable.host.versions import (
    has_sdk,
    has_task_state,
)
from resumable.host.written import (
    given,
    spec,
)

__all__ = [
    "ADOPTION",
    "DELETED",
    "HAND_BACK",
    "after_success",
    "airflow_errors",
    "airflow_setting",
    "allows_runs_at_once",
    "apply_defaults",
    "asset_state_rows",
    "asset_state_store",
    "at_end",
    "backfill_interval",
    "base_operator",
    "base_trigger",
    "be_a_server",
    "beside",
    "cancelled_triggers_may_ask",
    "configured_names",
    "configured_policy",
    "connections_of",
    "count",
    "current_context",
    "current_try_number",
    "dag_bag",
    "dag_time_zone",
    "database",
    "database_url",
    "deferral",
    "deployment",
    "durable_by_default",
    "end_stopped_task",
    "execute_guard",
    "final_errors",
    "flag",
    "from_trigger",
    "generation",
    "given",
    "given_context",
    "hand_back",
    "hand_back_seconds",
    "has_dag_processor",
    "has_object_storage",
    "has_sdk",
    "has_task_state",
    "holds_secret",
    "is_airflow_error",
    "is_chosen",
    "is_deferral",
    "is_deferral_error",
    "is_deferral_timeout",
    "is_final",
    "is_hand_back",
    "is_inlet",
    "is_last_try",
    "is_mapped",
    "is_not_found",
    "is_out_of_time",
    "is_run_by_airflow",
    "is_sensor",
    "is_server",
    "is_skip",
    "kept_by_operator",
    "killed_task_cleanup_time",
    "lost_heartbeat_setting",
    "map_over",
    "masked",
    "may_be_cleared",
    "may_have_lost_its_record",
    "number",
    "object_storage_path",
    "once_for_settings",
    "origin_of",
    "own_state",
    "parses_dag_files",
    "plugin_names",
    "provider_of",
    "record_limit",
    "records_are_elsewhere",
    "redacted",
    "request_lock",
    "require_store",
    "resolved_policy",
    "say_if_last",
    "say_once",
    "setting",
    "sigterm_calls",
    "skip",
    "spec",
    "start_again_in_time",
    "started_at",
    "state_seen_by_trigger",
    "state_store",
    "stats",
    "succeeded",
    "sweep_delay",
    "task_context",
    "task_identity",
    "task_state_place",
    "task_state_rows",
    "task_timeout",
    "task_variable_store",
    "team_of",
    "tells_triggers",
    "try_store",
    "users_stop_grace",
    "value_limit",
    "variables",
    "why_last_try",
    "wrong_settings",
]

"""
What a job is made from, as far as a retry has to know it: whether the author edited it, or whether it only moved by itself.

An operator's arguments differ from one attempt to the next for many reasons, and only one is an edit. So a value counts if
its author wrote it: it stands in the text of the DAG file as a constant. All else was computed when the file was parsed
(``now()``, ``uuid4()``, the environment, a file, a helper's result) and counts by its type. A number or a flag has to stand at
its place, under its own name: a small one stands somewhere in almost every file. No Airflow in here, and no I/O.

`fingerprint` is what a record keeps, and of which values; `comparison` tells an edit from one to the next. What they stand on:
`codes` of values, their `forms`, and the text of the file (`dag_file`, `places`, `reader`, `constants`).
"""

from resumable.jobs.spec.comparison import KEPT_REPLACED, edited_fields, moved_fields, replaced_marks
from resumable.jobs.spec.fingerprint import VERSION, WAITED_FOR_OR_LOGGED, Spec, is_of_the_job, named, spec_values

__all__ = [
    "KEPT_REPLACED",
    "VERSION",
    "WAITED_FOR_OR_LOGGED",
    "Spec",
    "edited_fields",
    "is_of_the_job",
    "moved_fields",
    "named",
    "replaced_marks",
    "spec_values",
]

"""
A task and its one remote job: the core.

Here belongs what is true of any job of any service: the decision, the record, one start of a task, the ways to wait. `decision`,
`record`, `attempt`, `remote` and `spec` know no Airflow.

May import: `resumable.errors`, `identity`, `policy`, `stores`, `stop`, `fleet`, `host`. May be imported by: `operators`, `fleet`,
`cleanup`, `cli`, `adoption`.
"""

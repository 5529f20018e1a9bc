"""
How a task is told to stop, and why: SIGTERM (`sigterm`), a job's watch, what else is open (`watch`), and triggers.

May import: `resumable.errors`, `policy`, `host`, and of `jobs` the record and the attempt. May be imported by: `jobs`,
`checkpoint`, `setup_once`, `operators`.
"""

"""
Ready-made operators, one module per service: ``from resumable.operators.databricks import ResumableDatabricksOperator``.

Nothing is imported here, so that a module imports no provider but its own. May import: `resumable.jobs`, `stop`, `host`. May be
imported by: DAG files, `adoption`, and nothing else of ours.
"""

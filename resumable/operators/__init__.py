"""Ready-made operators, one module per service: ``from resumable.operators.databricks import ResumableDatabricksOperator``.

Nothing is imported here, so that a module imports no provider but its own.
"""

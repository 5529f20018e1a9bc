"""What Airflow itself keeps a version from doing: scenario, with or without its operator, to the reason. Found by the matrix."""

from __future__ import annotations

CANNOT: dict[str, dict[str, str]] = {}

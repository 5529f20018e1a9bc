"""
The command ``python -m resumable.maintenance``, and the same for a task of a DAG, `sweep_from_task`: what is done is in
`resumable.cleanup.variables`.
"""

from __future__ import annotations

import sys

from resumable.cleanup.variables import main, sweep_from_task
from resumable.cli.main import in_words

__all__ = ["main", "sweep_from_task"]

if __name__ == "__main__":
    sys.exit(in_words(lambda: main(sys.argv[1:])))

"""The command ``python -m resumable.sweep``: what it does is in `resumable.cleanup.sweep`."""

from __future__ import annotations

import sys

from resumable.cleanup.sweep import main

if __name__ == "__main__":
    sys.exit(main())

"""The command ``python -m resumable.sweep``: what it does is in `resumable.cleanup.sweep`."""

from __future__ import annotations

import sys

from resumable.cleanup.sweep import main
from resumable.cli.main import in_words

if __name__ == "__main__":
    sys.exit(in_words(main))

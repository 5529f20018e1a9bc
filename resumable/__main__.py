"""``python -m resumable``: see docs/operating.md."""

import sys

from resumable.cli.main import main

sys.exit(main())

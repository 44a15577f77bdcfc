"""`python -m maypole.services.cli`: the command line where no script is installed."""

from __future__ import annotations

import sys

from maypole.services.cli import main

sys.exit(main())

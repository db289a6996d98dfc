"""Runs the siege, with every statement of the packages marked first."""

import sys

from siege import reached

reached.instrument()

from siege.campaign import main  # noqa: E402

sys.exit(main())

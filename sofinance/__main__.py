"""`python -m sofinance` is the command `sofinance`."""

import sys

from sofinance.cli import main

sys.exit(main())

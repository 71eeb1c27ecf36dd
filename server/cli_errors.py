"""How every command of the program ends when the user can mend what is wrong."""

from __future__ import annotations

import sys
from typing import NoReturn


def fail(message: object) -> NoReturn:
    """One line on stderr and exit code 2."""
    sys.stderr.write(f"visavis: {message}\n")
    raise SystemExit(2)

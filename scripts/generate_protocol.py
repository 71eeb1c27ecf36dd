"""Write the clients' protocol types from the server's definition; --check only compares.

Exit code 1 when a committed file is not what the definition says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from visavis.server.schema.python_types import python_types
from visavis.server.schema.typescript import typescript

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = {
    ROOT / "clients/web/src/lib/protocol.ts": typescript,
    ROOT / "clients/python/visavis_client/protocol.py": python_types,
}


def main() -> int:
    """Write or compare every generated file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for path, make in OUTPUTS.items():
        text = make()
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(path)
        if not check:
            path.write_text(text)
    for path in stale:
        what = "is stale: run `make protocol`" if check else "written"
        sys.stdout.write(f"{path.relative_to(ROOT)} {what}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

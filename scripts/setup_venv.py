"""Create a virtual environment and install locked requirements; needs only the standard library.

    python3 scripts/setup_venv.py .venv requirements/lock.txt --editable .

`make setup` calls it. PyTorch comes first and on its own: the CPU build is wanted, which the
configured index may have, or PyTorch's own, and which no other package may replace.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

OLDEST = (3, 11)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def say(message: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"setup: {message}\n")
    sys.stdout.flush()


def fail(message: str) -> NoReturn:
    """Say what is wrong and what to do, and stop."""
    sys.stderr.write(f"setup: {message}\n")
    raise SystemExit(1)


def create_venv(folder: Path) -> Path:
    """The environment's Python, made with the one that runs this if there is none yet."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    if sys.version_info < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        fail(f"Python {sys.version.split()[0]} is too old; install python{wanted} or newer")
    say(f"creating {folder} with Python {sys.version.split()[0]}")
    command = [sys.executable, "-m", "venv", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        # Debian keeps ensurepip in a package of its own.
        shutil.rmtree(folder, ignore_errors=True)
        apt_install("python3-venv")
        if subprocess.run(command, check=False).returncode:
            shutil.rmtree(folder, ignore_errors=True)
            fail("python -m venv failed; install python3-venv for this Python, then try again")
    return python


def apt_install(*packages: str) -> None:
    """Install Debian packages as root or through sudo, or say which command would do it."""
    names = " ".join(packages)
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    usable = shutil.which("apt-get") and (not prefix or shutil.which("sudo"))
    if not usable:
        fail(f"Debian packages are missing and cannot be installed from here: {names}")
    say(f"installing Debian packages: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends"]):
        command = [*prefix, "apt-get", *arguments]
        if arguments[0] == "install":
            command += packages
        if subprocess.run(command, check=False, env=environment).returncode:
            fail(f"apt-get failed; as root, run: apt-get install {names}")


def pip(python: Path, *arguments: str, quiet: bool = False) -> bool:
    """Run pip's install command; true if it worked."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, check=False, capture_output=quiet)
    return result.returncode == 0


def works(python: Path, code: str) -> bool:
    """Whether `code` runs in the environment."""
    return (
        subprocess.run([str(python), "-c", code], check=False, capture_output=True).returncode == 0
    )


def locked_torch(requirements: Path) -> str | None:
    """The lock's version of torch, None if it has none."""
    for line in requirements.read_text().splitlines():
        if line.startswith("torch=="):
            return line.removeprefix("torch==").strip()
    return None


def install_torch(python: Path, version: str) -> None:
    """The CPU build of PyTorch: from the configured index, else PyTorch's own, else any build."""
    check = f"import torch; assert torch.__version__.split('+')[0] == {version!r}"
    if works(python, check):
        return
    say(f"installing PyTorch {version} (CPU)")
    cpu = f"torch=={version}+cpu"
    linux = sys.platform == "linux"
    attempts = [
        (["--no-deps", "-qq", cpu], True, linux),
        (["--no-deps", "-qq", "--index-url", TORCH_CPU_INDEX, f"torch=={version}"], True, linux),
        (["--no-deps", f"torch=={version}"], False, not linux),
        # A build with CUDA needs NVIDIA's libraries even where there is no GPU.
        ([f"torch=={version}"], False, True),
    ]
    for arguments, quiet, sensible in attempts:
        if sensible and pip(python, *arguments, quiet=quiet):
            # Its own requirements follow with the lock; until then it cannot be imported.
            return
    fail(f"no index has torch {version} for Python {sys.version_info[0]}.{sys.version_info[1]}")


def main() -> None:
    """Create, install, check."""
    parser = argparse.ArgumentParser(description="Create a virtual environment from a lock file.")
    parser.add_argument("venv", type=Path)
    parser.add_argument("requirements", type=Path, nargs="*")
    parser.add_argument("--editable", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--check", default="", metavar="MODULES", help="imports that must work")
    parser.add_argument(
        "--no-compile", action="store_true", help="compile modules when they are first imported"
    )
    parser.add_argument("--apt", metavar="COMMAND=PACKAGE", help="Debian package of a command")
    options = parser.parse_args()
    if options.apt:
        command, package = options.apt.split("=")
        if not shutil.which(command):
            apt_install(package)
    python = create_venv(options.venv)
    for requirements in options.requirements:
        version = locked_torch(requirements)
        if version is not None:
            install_torch(python, version)
        say(f"installing {requirements}")
        arguments = ["--no-deps", "-qq", *(["--no-compile"] if options.no_compile else [])]
        if not pip(python, *arguments, "-r", str(requirements)):
            fail(f"pip could not install {requirements}; its message is above")
    for folder in options.editable:
        arguments = ["--no-deps", "--no-build-isolation", "-qq", "-e", folder]
        if not pip(python, *arguments):
            fail(f"pip could not install {folder}; its message is above")
    if options.check:
        code = f"import {options.check}"
        result = subprocess.run([str(python), "-c", code], check=False)
        if result.returncode:
            fail("an installed library does not load; if a lib*.so is named, install its package")


if __name__ == "__main__":
    main()

"""C sources compiled where they run, for the processor and by the compiler that are there.

A source takes a second at first and nothing later: the library is kept in the user's cache folder,
or where VISAVIS_NATIVE_CACHE says. Without a compiler the plain PyTorch references serve, and a
warning says so once. `VISAVIS_NATIVE=off` asks for them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from visavis.kernels.choice import tell_fallback

SWITCH_VARIABLE = "VISAVIS_NATIVE"
CACHE_VARIABLE = "VISAVIS_NATIVE_CACHE"
COMPILERS = ("cc", "gcc", "clang")
_TIMEOUT_S = 60
_FLAGS = (
    *("-O3", "-std=c11", "-fopenmp", "-fPIC", "-shared"),
    # what no sum here depends on, and what keeps loops from becoming vectors
    *("-fno-math-errno", "-fno-trapping-math"),
)


class NativeError(RuntimeError):
    """A source that cannot be compiled or loaded here."""


@cache
def native(source: Path) -> ctypes.CDLL | None:
    """The library of a C source, compiled if it has not been; None where that cannot be."""
    if os.environ.get(SWITCH_VARIABLE, "").lower() in ("0", "off", "no", "false"):
        return None
    try:
        return ctypes.CDLL(str(_library(source)))
    except (RuntimeError, OSError) as error:  # a home folder that is not known, too
        tell_fallback(source.stem, "plain PyTorch", ((source.name, str(error)),))
        return None


def _library(source: Path) -> Path:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NativeError(f"no C compiler ({', '.join(COMPILERS)}); install one, such as gcc")
    flags = [*_FLAGS, *_processor_flags()]
    name = hashlib.sha256(
        "\0".join([source.read_text(encoding="utf-8"), compiler, *flags, _processor()]).encode()
    ).hexdigest()[:20]
    folder = _folder()
    found = folder / f"{source.stem}-{name}.so"
    if not found.is_file():
        _compile([compiler, *flags], source, found)
    return found


def _compile(command: list[str], source: Path, target: Path) -> None:
    """In one move, so that no other process loads half of it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch, target.name)
        try:
            done = subprocess.run(
                [*command, "-o", str(fresh), str(source), "-lm"],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NativeError(f"{command[0]} took more than {_TIMEOUT_S} s") from error
        if done.returncode:
            raise NativeError(f"{command[0]} failed: {done.stderr.strip()[:500]}")
        fresh.replace(target)


def _folder() -> Path:
    """Only its owner may write there: what lies in it is executed."""
    given = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(given) if given else Path(base or Path.home() / ".cache") / "visavis" / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise NativeError(
            f"{folder}: others may write there; make it your own (chmod 700), or name another "
            f"in {CACHE_VARIABLE}"
        )
    return folder


def _processor_flags() -> list[str]:
    if platform.machine() in ("x86_64", "AMD64"):
        return ["-march=native", "-mprefer-vector-width=512"]
    return ["-mcpu=native"]


def _processor() -> str:
    """What tells processors apart that may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        next((line for line in lines if line.startswith(key)), "")
        for key in ("model name", "flags", "Features", "CPU part")
    )

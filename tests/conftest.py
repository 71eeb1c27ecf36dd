"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Before anything imports Triton: its kernels then run in its interpreter, on CPU tensors.
os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Recordings of the original model; a test that needs them skips without them."""
    folder = Path(os.environ.get("VISAVIS_FIXTURES", REPOSITORY.parent / "shared" / "fixtures"))
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set VISAVIS_FIXTURES to their folder")
    return folder


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say where sound or pictures differ: a log of all their bytes hides everything else."""
    if op != "==" or not (isinstance(left, bytes) and isinstance(right, bytes)):
        return None
    if max(len(left), len(right)) <= 80:
        return None
    same = os.path.commonprefix([left, right])
    rest = [left[len(same) :][:12].hex() or "nothing", right[len(same) :][:12].hex() or "nothing"]
    return [
        f"{len(left)} bytes == {len(right)} bytes",
        f"the first {len(same)} are the same, then {rest[0]} stands against {rest[1]}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: playwright's event loop keeps running in the main thread once started,
    and no asynchronous test can run beside it."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)

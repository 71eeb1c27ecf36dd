"""The command `visavis conformance`: does a server speak the protocol?"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from visavis.server.cli_errors import fail


def conformance(
    url: str,
    *,
    avatar: str | None = None,
    only: str | None = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    timeout: float = 20.0,
    json: Path | None = None,
) -> None:
    """Check that a server keeps the wire protocol (docs/protocol.md), from outside.

    The exit code is 0 when every check passed or was skipped, 1 when one failed, 2 when nothing
    could be checked. A key or token is taken from VISAVIS_API_KEY.

    Parameters
    ----------
    url
        The server, such as ws://127.0.0.1:8000; a path is taken as it is.
    avatar
        Id of an avatar to use. [default: the first of GET /v1/avatars]
    only
        Run the checks whose names begin with this.
    quick
        Leave out the checks that wait for time limits.
    timeout
        Seconds to wait for each answer.
    json
        Also write the report to this file.
    """
    from rich.console import Console

    from visavis.server.conformance.address import first_avatar, socket_url
    from visavis.server.conformance.peer import Target
    from visavis.server.conformance.runner import (
        not_ready,
        print_result,
        report_json,
        run_checks,
        select,
    )

    token = os.environ.get("VISAVIS_API_KEY")
    try:
        target = Target(
            url=socket_url(url),
            avatar_id=avatar or first_avatar(url, token, timeout),
            token=token,
            timeout_s=timeout,
        )
        checks = select(only, quick=quick)
    except ValueError as error:
        fail(error)
    why = asyncio.run(not_ready(target))
    if why is not None and not all(check.while_loading for check in checks):
        fail(f"{target.url} cannot be checked now: {why}")
    console = Console()
    results = asyncio.run(run_checks(checks, target, lambda r: print_result(console, r)))
    failed = sum(r.outcome == "failed" for r in results)
    skipped = sum(r.outcome == "skipped" for r in results)
    console.print(f"{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    if json is not None:
        json.write_bytes(report_json(target, results))
    raise SystemExit(1 if failed else 0)


def register(app: App) -> None:
    """Add the command to the program."""
    app.command(conformance)


def main() -> None:
    """The program `visavis-conformance`, for environments without the rest of visavis."""
    app = App(name="visavis-conformance")
    app.default(conformance)
    app()

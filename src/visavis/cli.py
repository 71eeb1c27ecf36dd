"""The `visavis` program: joins the commands of the server and of training, each loaded lazily."""

from __future__ import annotations

from cyclopts import App


def build_app() -> App:
    """All commands; importing them must not import torch, so that --help is instant."""
    app = App(
        name="visavis",
        help="Real-time streaming avatars: one portrait and a stream of speech in, "
        "a talking face out.",
        version_flags=["--version", "-V"],
    )
    from visavis.server import cli as server_cli

    server_cli.register(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    build_app()()

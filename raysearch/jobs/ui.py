"""The record of searches in MLflow's UI."""

from __future__ import annotations

import os
import signal
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from raysearch.bounds import between
from raysearch.tracking import UiServer, default_uri, recorded_searches


@dataclass(frozen=True, slots=True)
class UiCommand:
    """Print an address for each search in a store, newest first, and serve MLflow's UI."""

    uri: Annotated[str | None, tyro.conf.Positional] = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, or SQLite in the folder runs."""
    port: Annotated[int, between(1, 65535)] = 5000
    """Where the UI listens on this machine."""


def show(command: UiCommand, *, console: Console) -> None:
    """Print the searches of a store, and serve the UI until it is interrupted; a server has its UI already.

    Where there is a screen, the newest search opens in the browser. Raises UserError when the store holds no search.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends with this program
    uri = command.uri or default_uri(Path("runs"))
    searches = recorded_searches(uri, port=command.port)
    for search in searches:
        started = f"{search.started:%Y-%m-%d %H:%M}"
        _say(console, f"{started}  {search.status:8}  {search.experiment}/{search.name}  {search.url}")
    if uri.startswith("http"):
        return
    with UiServer(uri, port=command.port) as server:
        _say(console, "Ctrl-C ends the UI")
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(searches[0].url)
        server.wait()


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
    sys.stdout.flush()  # a program that reads it waits for the address

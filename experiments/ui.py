"""Opens the record of searches in MLflow's UI: ``python experiments/ui.py [URI] [--port 5000]`` (``make ui``).

Prints an address for each search, newest first. Where there is a screen, the newest opens in the browser.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import webbrowser
from pathlib import Path

from raysearch.tracking import TrackingError, UiServer, default_uri, recorded_searches


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Open the record of searches in MLflow's UI.")
    parser.add_argument("uri", nargs="?", default=default_uri(Path("runs")), help="MLflow store; default: that of runs/")
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends with this program
    try:
        show(options.uri, port=options.port)
    except TrackingError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def show(uri: str, *, port: int) -> None:
    """Print the searches of a store, and serve the UI until it is interrupted; a server has its UI already."""
    searches = recorded_searches(uri, port=port)
    for search in searches:
        print(
            f"{search.started:%Y-%m-%d %H:%M}  {search.status:8}  {search.experiment}/{search.name}  {search.url}", flush=True
        )
    if uri.startswith("http"):
        return
    with UiServer(uri, port=port) as server:
        print("Ctrl-C ends the UI", flush=True)
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(searches[0].url)
        server.wait()


if __name__ == "__main__":
    main()

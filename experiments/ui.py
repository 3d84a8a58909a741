"""Opens the record of searches in MLflow's UI: ``python experiments/ui.py [URI] [--port 5000]`` (``make ui``)."""

from raysearch.cli import ui

if __name__ == "__main__":
    ui()

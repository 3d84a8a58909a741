"""Set before anything is imported: shapes are checked in tests, and nothing reports outwards."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("raysearch", "shape_checks.check")
settings.register_profile("raysearch", deadline=None)  # a busy machine is no failure
settings.load_profile("raysearch")

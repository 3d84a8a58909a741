"""The name under which 0.1.0's documentation imports :func:`open_cache` and its neighbours; they are in ``tasks.images``."""

from raysearch.tasks.images import *  # noqa: F403  # whatever it names was here

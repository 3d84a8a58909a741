"""What the user can mend, apart from what is a bug."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user's, or of their files or machines: one line that names the place and the remedy.

    Programs print the line and exit with 2. Every other exception, a ValueError of NumPy's included, is a bug and keeps its
    traceback.
    """

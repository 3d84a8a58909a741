"""What the user can mend, apart from what is a bug."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from typing import Any, cast


class UserError(ValueError):
    """A mistake of the user's, or of their files or machines: one line that names the place and the remedy.

    Programs print the line and exit with 2. Every other exception, a ValueError of NumPy's included, is a bug and keeps its
    traceback.
    """


class SettingError(UserError):
    """One setting has a value that cannot be: ``train.clip-grad is 0, must be above 0``.

    Args:
        name: of the field; which group it is in is added by who reads the group.
        words: all that follows the name.

    """

    def __init__(self, name: str, words: str) -> None:
        super().__init__(name, words)
        self.name, self.words = name, words

    def inside(self, group: str) -> SettingError:
        """The same error of a setting in a group."""
        return SettingError(f"{group}.{self.name}" if group else self.name, self.words)

    def __str__(self) -> str:
        """As the command line names settings, but for the two dashes before it."""
        return f"{self.name.replace('_', '-')} {self.words}"


def machine_trouble(error: BaseException) -> str | None:
    """What the machine or the user's files refuse, in one line with the place and the remedy; None where that is no cause.

    Looked for in the error and in what caused it, in another process of Ray's too: an error of the system (a full disk, a
    folder that may not be read), one of a database, or a :class:`UserError`.
    """
    for cause in _causes(error):
        if isinstance(getattr(cause, "cause", None), BaseException):
            continue  # Ray's copy of an error that a task raised, with a traceback for its words: the error itself comes next
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno is not None:
            place = f"{os.fsdecode(cause.filename)}: " if isinstance(cause.filename, str | bytes | os.PathLike) else ""
            return f"{place}{cause.strerror or os.strerror(cause.errno)}; {_REMEDIES.get(cause.errno, 'see to that first')}"
        if isinstance(cause, sqlite3.OperationalError):
            remedy = next(
                (words for said, words in _DATABASES.items() if said in str(cause)), "name another with --tracking-uri"
            )
            return f"MLflow's database: {cause}; {remedy}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what Python, Ray and SQLAlchemy say it came from, and what that came from; each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        failures = getattr(found, "worker_failures", None)  # of Ray Train: by rank
        origins = (getattr(found, "cause", None), found.__cause__, getattr(found, "orig", None))
        inner = [*origins, *(cast(dict[int, Any], failures).values() if isinstance(failures, dict) else ())]
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]


_SPACE = "make room there"
_RIGHTS = "give another place, or the right to use this one"
_LIMIT = "raise the limit of open files (ulimit -n)"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: _LIMIT,
    errno.ENFILE: _LIMIT,
    errno.ENOENT: "restore it, or give another place",
    errno.ENOMEM: "free memory, or ask for less of it",
}
_DATABASES = {
    "full": _SPACE,
    "readonly": _RIGHTS,
    "unable to open": _RIGHTS,
    "locked": "another program holds it: end that, or name another store with --tracking-uri",
}

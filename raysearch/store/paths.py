"""Paths as people type them, made to mean the same in every process: another one may have another working directory."""

from __future__ import annotations

from pathlib import Path

_SQLITE = "sqlite:///"


def absolute(path: Path) -> Path:
    """The path with ``~`` expanded, from the root of the file system; links are kept as they are."""
    return expanded(path).absolute()


def expanded(path: Path) -> Path:
    """The path with ``~`` expanded, for files that this process alone opens: messages then show what was typed."""
    try:
        return path.expanduser()
    except RuntimeError:  # a user's name that is not known: then it is the name of a file
        return path


def of_home(text: str) -> str:
    """A text that may name a file, as a pattern or an MLflow run id too, with ``~`` expanded; any other stays as it is."""
    return str(expanded(Path(text))) if text.startswith("~") else text


def absolute_uri(uri: str) -> str:
    """An MLflow URI in which the path of an SQLite file is absolute; a bare path is a folder of files."""
    if uri.startswith(_SQLITE):
        file, mark, settings = uri.removeprefix(_SQLITE).partition("?")
        return f"{_SQLITE}{absolute(Path(file))}{mark}{settings}" if file and file != ":memory:" else uri
    return uri if ":" in uri or not uri else str(absolute(Path(uri)))


def absolute_unless_uri(text: str) -> str:
    """A path from the root of the file system; an address, as ``s3://bucket/folder``, and a name with a colon stay as they are.

    A file whose name has a colon is a path all the same where there is one.
    """
    head = text.partition("/")[0]
    return text if ":" in head and not expanded(Path(text)).exists() else str(absolute(Path(text)))

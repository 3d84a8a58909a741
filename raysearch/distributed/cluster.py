"""Connection to a Ray cluster, or to one started on this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import ray
from ray import cloudpickle
from ray._private import services
from ray._private import utils as ray_utils
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysearch.errors import UserError

if TYPE_CHECKING:  # they import PyTorch, which the pool and its like start without
    from raysearch.spaces import Family
    from raysearch.tasks import Task

log = logging.getLogger(__name__)

Actor = Any
"""Handle of a Ray actor; Ray's types know neither its methods nor what they answer."""

LOST = (RayActorError, OutOfMemoryError)
"""What Ray raises for an actor whose process is gone; the second where Ray itself ended it, as its node was low on memory."""

# Before any Tuner is built: no result files per trial, no snapshot while trials run (the journal is what a resumed search
# reads), Ctrl-C reaches the caller, no table of settings, no usage report.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def connected(address: str | None, *, say: Callable[[str], None] = log.warning) -> Generator[None]:
    """A Ray connection for the length of a ``with`` block; an existing one of this process is used and left open.

    ``address`` is a cluster's, ``auto``, ``local``, or None for Ray's own rule: ``RAY_ADDRESS``, a cluster running on this
    node, else a new one on this machine. Of a cluster that left its address on this node but answers no more, ``say`` gets one
    line. Raises UserError when no cluster answers where one is asked for, and when none can be started.
    """
    if ray.is_initialized():
        yield
        return
    resolved = resolve(address, say=say)
    try:
        with _handlers_kept(), _without_command_line():
            ray.init(address=resolved, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        at = services.find_bootstrap_address(None) if resolved is None else resolved
        trouble = "Ray could not be started on this machine" if at in (None, "local") else f"no Ray cluster at {at}"
        raise UserError(f"{trouble}: {_first_line(error)}{_of_token(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _of_token(error: Exception) -> str:
    """What may be the reason where something answers and is no cluster for us: Ray tells the log alone."""
    if "Failed to connect" not in str(error):
        return ""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return "; is the token (RAY_AUTH_TOKEN, or the file ~/.ray/auth_token) the cluster's?"
    return "; if it asks for a token, set RAY_AUTH_MODE=token and have that in ~/.ray/auth_token or RAY_AUTH_TOKEN"


def resolve(address: str | None, *, say: Callable[[str], None] = log.warning) -> str | None:
    """The address to give to Ray, of a cluster that answers; see :func:`connected`.

    A cluster that was killed leaves its address in a file of this node, for which Ray would wait 7 minutes (measured, 2.60).
    """
    asked = address or os.environ.get("RAY_ADDRESS") or None
    if asked is not None and asked != "auto":
        if (trouble := _silence(asked)) is not None:
            raise UserError(f"no Ray cluster at {asked}: {trouble}; start one or correct --ray-address")
        return asked
    noted = services.find_bootstrap_address(None)
    trouble = None if noted is None else _silence(noted)
    if trouble is None:
        return asked
    if asked == "auto":
        raise UserError(f"the Ray cluster noted on this node, at {noted}, does not answer ({trouble}); start one")
    say(f"the Ray cluster noted on this node, at {noted}, does not answer: starting one on this machine")
    return "local"


@contextmanager
def _handlers_kept() -> Generator[None]:
    """Keep the program's signal handlers through ray.init, which replaces them: a SIGTERM would end in a native stack dump."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers are the main thread's
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    terminated = False
    try:
        yield
    except SystemExit as leave:
        if leave.code != signal.SIGTERM:  # what Ray's handler leaves with
            raise
        terminated = True
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that Python did not set
                signal.signal(number, handler)
    if terminated:
        signal.raise_signal(signal.SIGTERM)
        raise SystemExit(128 + signal.SIGTERM)  # where the program ignores it


@contextmanager
def _without_command_line() -> Generator[None]:
    """Have Ray keep ``raysearch`` for this program's command line, which it records with the job.

    That may hold a password, and a path whose bytes are no UTF-8, which Ray refuses (2.60: ``get_entrypoint_name``).
    """
    recorded = ray_utils.get_entrypoint_name
    ray_utils.get_entrypoint_name = lambda: "raysearch"
    try:
        yield
    finally:
        ray_utils.get_entrypoint_name = recorded


def carry(family: Family[Any, Any], task: Task) -> None:
    """Have the code of a family or task of the user's own travel by value to every process of the cluster, which needs no file.

    That is the modules in which its parts are written, and no others: what these import must be installed there. What this
    package holds is found by name and needs nothing.
    """
    for part in (type(task), family.config, family.architecture, family.build, family.supernet, family.subnet):
        written: Any = part
        while isinstance(written, partial):
            written = cast("partial[Any]", written).func
        name: str = written.__module__
        if name.split(".")[0] != "raysearch":
            cloudpickle.register_pickle_by_value(sys.modules[name])


def _silence(address: str) -> str | None:
    """Why nothing answers at ``HOST:PORT``, for which Ray would wait for minutes; None when something does."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or "/" in host:
        return None  # local, a client's URI: Ray's own business
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        return str(error)
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def answer(reference: Any) -> Any:
    """Wait for the value of one object reference.

    What the user can mend arrives as it was raised in the other process, be it their mistake or the lack of room on a disk.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise told(error) from None


def told(error: RayTaskError) -> Exception:
    """The error of another process as it was raised there, where a user can mend it; a bug keeps Ray's, with its traceback."""
    cause: object = error.cause
    if not isinstance(cause, (UserError, OSError)):
        return error
    if not hasattr(cause, "__notes__"):
        cause.add_note(str(error))  # the traceback of that process
    return cause


def brief(error: Exception) -> str:
    """What Ray says of a loss, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def beside_caller(actor: type, *arguments: Any, **options: Any) -> Actor:
    """Start an actor on the caller's node, using no processor: for actors that read or write the caller's files."""
    here: Any = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here, **options)(actor).remote(*arguments)

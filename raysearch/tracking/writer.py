"""The thread that writes records: a slow store never holds a search up, a silent one is tried again and caught up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from raysearch.tracking.records import Record, Spool
from raysearch.tracking.store import TROUBLE, first_line, is_refusal

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0

END = "end"
"""Kind of the record that ends the runs."""


class Writer:
    """Writes records one after another, in the order in which they came.

    A record may be written twice when an answer was lost or a process was killed: ``write`` must not mind.

    Args:
        write: writes one record; raises what is in TROUBLE when the store is silent or refuses it.
        spool: where records wait while the store is silent; those of an earlier process are written first.
        where: the store's name in messages.
        patience: seconds that :meth:`close` goes on trying while the store takes nothing.

    """

    def __init__(self, write: Callable[[Record], None], *, spool: Spool, where: str, patience: float) -> None:
        self._write = write
        self._spool = spool
        self._where = where
        self._patience = patience
        self._arrivals: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._waiting = deque(record for record in spool.left if record.kind != END)  # this process writes an end of its own
        self._spooling = bool(spool.left)
        if self._spooling:
            spool.write(spool.left)  # without a last line that broke off
        self._end: Record | None = None
        self._refused = 0
        self._silent = False
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    @property
    def missing(self) -> int:
        """How many records the store has not taken."""
        return self._refused + len(self._waiting) + self._arrivals.qsize()

    def put(self, record: Record) -> None:
        """Have a record written; returns at once. Raises RuntimeError after :meth:`close`, or when the thread broke."""
        self._raise_failure()
        if self._closing.is_set():
            raise RuntimeError(f"{record.what} came after the tracker was closed")
        self._arrivals.put(record)

    def close(self, end: Record) -> None:
        """Write what is left, ``end`` as the last, as long as the store takes something. Raises RuntimeError on a bug."""
        self._closing.set()
        self._end = end
        self._arrivals.put(None)
        self._thread.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError("the MLflow writer broke") from self._failure

    # --- the thread ---

    def _run(self) -> None:
        try:
            pause = 1.0
            while self._receive(None if not self._waiting else 0.0):
                if not self._waiting:
                    continue
                if self._write_next():
                    pause = 1.0
                    continue
                if not self._receive(pause):
                    break
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._drain()
        except Exception as error:  # a bug: it is kept and raised in the search's own thread
            self._failure = error

    def _receive(self, seconds: float | None) -> bool:
        """Take in what arrives in so many seconds (None: until something does). False when nothing will arrive any more."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                left = None if deadline is None else deadline - time.monotonic()
                record = self._arrivals.get(left is None or left > 0, left)
            except queue.Empty:
                return True
            if record is None:
                return False
            self._waiting.append(record)
            if self._spooling:
                self._spool.append(record)
            if deadline is None:
                deadline = time.monotonic()  # take what is here, and write

    def _drain(self) -> None:
        """After close: go on for as long as the store takes something; what it did not take stays on disk."""
        assert self._end is not None
        deadline = time.monotonic() + self._patience
        while True:
            if not self._waiting and self._attempt(self._end):
                break
            if self._waiting and self._write_next():
                deadline = time.monotonic() + self._patience
            elif time.monotonic() > deadline:
                if not self._attempt(self._end):  # one record may be what the store chokes on: the runs end without it
                    self._waiting.append(self._end)
                break
            else:
                time.sleep(min(0.5, self._patience))
        self._spool.write(self._waiting)

    def _write_next(self) -> bool:
        """Whether a record is done with. The order stays, unless the one that comes next is what the store chokes on."""
        waiting = self._waiting
        done = self._attempt(waiting[0])
        if not done and len(waiting) > 1 and self._attempt(waiting[1]):
            waiting.append(waiting.popleft())
            done = True
        if done:
            waiting.popleft()
            if self._spooling and not waiting:
                self._spooling = False
                self._spool.write(())
        elif not self._spooling:
            self._spooling = True
            self._spool.write(waiting)
        return done

    def _attempt(self, record: Record) -> bool:
        """Whether ``record`` is done with: written, or refused for good. False: the store is silent, try again later."""
        try:
            self._write(record)
        except TROUBLE as error:
            if is_refusal(error):
                self._refused += 1
                log.error("MLflow at %s refused %s: %s", self._where, record.what, first_line(error))
                return True
            if not self._silent:
                self._silent = True
                place = "in memory" if self._spool.path is None else f"in {self._spool.path}"
                log.warning("MLflow at %s does not answer, its records wait %s: %s", self._where, place, first_line(error))
            return False
        if self._silent:
            self._silent = False
            log.warning("MLflow at %s answers again; its records are being caught up", self._where)
        return True

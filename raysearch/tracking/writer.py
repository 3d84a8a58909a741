"""The thread that writes records: a slow store never holds a search up, a silent one is tried again and caught up.

A record is among the arrivals, where the search puts it; then in ``waiting``, the thread's own list, whose head is written
next; then done with. While the store is silent, what waits is also in the spool's file, so that a process that is killed then
loses nothing that it took in. There is one thread, for MLflow has no bulk create: four write no faster into SQLite (measured:
32 ms a candidate instead of 28), and with one the records reach the store in the order in which they came.
"""

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
"""Seconds between two tries while the store is silent: a server that comes back is noticed within them."""

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
        self._arrivals: queue.SimpleQueue[Record | None] = queue.SimpleQueue()  # None: nothing will arrive any more
        # What an earlier process left comes first, so a candidate's run is there before the tags of the champion are set on it.
        # But not its end: this process has opened the run again and writes an end of its own, with a status of its own.
        self._waiting = deque(record for record in spool.left if record.kind != END)
        self._spooling = bool(spool.left)  # the file holds what waits, and gets what arrives
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
        self._raise_failure()  # here, for the thread cannot stop a search that goes on for hours
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
            # With nothing to do, sleep until something arrives; else only look, and write on.
            while self._receive(None if not self._waiting else 0.0):
                if not self._waiting:
                    continue
                if self._write_next():
                    pause = 1.0
                    continue
                # The store is silent. The pause is spent receiving: what arrives meanwhile must reach the spool's file at once,
                # for the process may be killed.
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
            if record is None:  # by :meth:`close`, which put it behind all others: they are in ``waiting`` now
                return False
            self._waiting.append(record)
            if self._spooling:
                self._spool.append(record)  # one line more; the file is not written anew for each
            if deadline is None:
                deadline = time.monotonic()  # take what is here, and write

    def _drain(self) -> None:
        """After close: go on for as long as the store takes something; what it did not take stays on disk.

        The end is held back until nothing else waits, for it ends the runs that the others write to.
        """
        assert self._end is not None
        deadline = time.monotonic() + self._patience
        while True:
            if not self._waiting and self._attempt(self._end):
                break
            if self._waiting and self._write_next():
                deadline = time.monotonic() + self._patience  # it takes something, and thousands may wait
            elif time.monotonic() > deadline:
                # Either the store is silent, or one record is what it chokes on. Then the runs end without that one, and none
                # stays RUNNING in the UI for ever; in silence, this attempt fails like the others.
                if not self._attempt(self._end):
                    self._waiting.append(self._end)
                break
            else:
                time.sleep(min(0.5, self._patience))
        self._spool.write(self._waiting)  # for the next process; no file when all is written

    def _write_next(self) -> bool:
        """Whether a record is done with. The order stays, unless the one that comes next is what the store chokes on.

        Of an error such as 500 nobody knows whether the store is ill or this record makes it so. The second in line tells: when
        it is taken, the store is well, and the first goes to the end, where it is tried again and holds nobody up. Where the
        store is silent both attempts fail, and nothing is moved.
        """
        waiting = self._waiting
        done = self._attempt(waiting[0])
        if not done and len(waiting) > 1 and self._attempt(waiting[1]):
            waiting.append(waiting.popleft())
            done = True  # the second, which is the head now
        if done:
            waiting.popleft()
            # The file goes when all is caught up, not line by line. A process that is killed before leaves records in it that
            # the store has taken; the next one writes them again, which changes nothing.
            if self._spooling and not waiting:
                self._spooling = False
                self._spool.write(())
        elif not self._spooling:  # silence begins: all that waits goes to the file, from here on each arrival as a line
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

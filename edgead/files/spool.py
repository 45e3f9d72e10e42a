"""A durable queue on the disk, for texts that wait for a receiver, which may be away for hours.

It is an SQLite database in WAL mode. Every entry is on the disk before `append` returns, so neither a kill nor a
power cut loses it. Numbers of entries grow and are never used again, so a receiver can recognise an entry that it
gets twice.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgead.errors import EdgeadError

# "edge": a database of another program is refused.
_APPLICATION = 0x65646765


class Spool:
    """A bounded queue of texts in a file; several threads may use it, and only one process.

    Args:
        path: File of the queue; it is made if it is missing.
        max_entries: Largest number of entries that wait.

    Attributes:
        id: Random name of this queue, which it keeps. Together with the number of an entry it is unique.

    Raises:
        EdgeadError: The file cannot be opened, is in use, or is no queue.
    """

    def __init__(self, path: Path, max_entries: int) -> None:
        self._path, self._max_entries = path, max_entries
        self._lock = threading.Lock()
        with self._errors():
            # The absolute path, because SQLite keeps ":memory:" in memory.
            self._database = sqlite3.connect(
                os.path.abspath(path), timeout=0, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                self.id = self._set_up()
                (self._count,) = self._database.execute("SELECT count(*) FROM entry").fetchone()
        except EdgeadError:
            self._database.close()
            raise

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return int(self._count)

    def append(self, text: str) -> int:
        """Append an entry; it is on the disk afterwards.

        Args:
            text: Text of the entry.

        Returns:
            Number of the entry, greater than every number before.

        Raises:
            EdgeadError: The queue is full, or the disk refuses. Nothing was appended.
        """
        with self._lock, self._errors():
            if self._count >= self._max_entries:
                raise EdgeadError(
                    f"{self._path} is full with {self._count} entries", hint="the receiver has to come back"
                )
            number = self._database.execute("INSERT INTO entry (text) VALUES (?)", (text,)).lastrowid
            self._count += 1
        assert number is not None
        return number

    def first(self, limit: int, after: int = 0) -> list[tuple[int, str]]:
        """Return the oldest entries; they stay in the queue.

        Args:
            limit: Largest number of entries.
            after: Number of an entry; the entries up to it are left out.

        Returns:
            Pairs of number and text.

        Raises:
            EdgeadError: The disk refuses.
        """
        with self._lock, self._errors():
            return self._database.execute(
                "SELECT number, text FROM entry WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
            ).fetchall()

    def remove_through(self, number: int) -> None:
        """Remove all entries up to a number. After a power cut the last ones may be there again.

        Raises:
            EdgeadError: The disk refuses.
        """
        execute = self._database.execute
        with self._lock, self._errors():
            # An entry that comes back has its old number, so it is not worth a flush.
            execute("PRAGMA synchronous = NORMAL")
            try:
                self._count -= execute("DELETE FROM entry WHERE number <= ?", (number,)).rowcount
            finally:
                execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the file; may be called twice."""
        with self._lock, self._errors():
            self._database.close()

    def _set_up(self) -> str:
        """Take the file for this process alone, make its tables if it is new, and return the name of the queue."""
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA synchronous = FULL")
        # In KiB. A queue is used at its two ends, so 2 MiB for each would stay in memory for nothing.
        execute("PRAGMA cache_size = -128")
        (application,) = execute("PRAGMA application_id").fetchone()
        is_new = application != _APPLICATION
        if is_new and execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise sqlite3.DatabaseError("it is the database of another program")
        execute("PRAGMA journal_mode = WAL")
        # Here, because a file that is read-only must be an error before the first entry.
        execute("BEGIN IMMEDIATE")
        if is_new:
            execute("CREATE TABLE entry (number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL)")
            execute("CREATE TABLE queue (id TEXT NOT NULL)")
            execute("INSERT INTO queue VALUES (?)", (uuid.uuid4().hex[:16],))
            execute(f"PRAGMA application_id = {_APPLICATION}")
        execute("COMMIT")
        (name,) = execute("SELECT id FROM queue").fetchone()
        return str(name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors of SQLite."""
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise EdgeadError(
                    f"{self._path} is in use by another process", hint="give each stream a file of its own"
                ) from error
            raise EdgeadError(
                f"cannot use {self._path} as a queue ({error})",
                hint="check the path, its rights and the disk",
            ) from error

"""The floor of a durable write: one row and one commit after another, without a server. Prints the commits and their seconds.

Usage: python commit_floor.py PATH SECONDS
"""

from __future__ import annotations

import sqlite3
import sys
import time


def main(path: str, seconds: float) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, body TEXT)")
    print("ready", flush=True)
    started, count = time.perf_counter(), 0
    while (lasted := time.perf_counter() - started) < seconds:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO event (body) VALUES ('paid')")
        database.execute("COMMIT")
        count += 1
    print(count, lasted, time.process_time(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

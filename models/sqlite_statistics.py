"""Fixed planner statistics of one large account. Source: https://www.sqlite.org/optoverview.html"""

import sqlite3
from typing import Final

ROWS: Final = 1_000_000  # of every table

# Fixed, as ANALYZE's averages hide one large account among small ones.
# Distinct values of a column in a large database. A column that is not here has many: one per ten rows.
_FEW: Final = {
    "account_id": 2,
    "processor_connection_id": 4,
    "channel_connection_id": 4,
    "user_id": 20,
    "processor": 4,
    "kind": 5,
    "status": 5,
    "delivery_status": 5,
    "outcome": 4,
    "test_mode": 2,
    "currency": 2,
    "mutation": 10,
}
_MANY: Final = ROWS // 10


def fix(connection: sqlite3.Connection) -> None:
    """Store every index's statistics. Call inside a write transaction."""
    wanted = sorted(_statistics(connection))
    if wanted and _stored(connection) == wanted:
        return
    for table in _tables_of_statistics(connection):
        connection.execute(f"DROP TABLE {table}")
    if not wanted:  # everything was rolled back
        return
    connection.execute("ANALYZE sqlite_schema")  # creates sqlite_stat1, and reads no rows
    connection.executemany("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", wanted)
    connection.execute("ANALYZE sqlite_schema")  # other connections read them when they open


def _tables_of_statistics(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE name IN ('sqlite_stat1', 'sqlite_stat4')")
    return [name for (name,) in found.fetchall()]


def _stored(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    names = _tables_of_statistics(connection)
    if "sqlite_stat1" not in names:
        return []
    if "sqlite_stat4" in names and connection.execute("SELECT 1 FROM sqlite_stat4 LIMIT 1").fetchall():
        return []
    return sorted(connection.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall(), key=str)


def _statistics(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    found = connection.execute(
        'SELECT t.name, i.name, i."unique", i.partial FROM sqlite_master t, pragma_index_list(t.name) i'
        " WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%' AND t.name <> 'schema_migration'"
    ).fetchall()
    statistics = []
    for table, index, is_unique, is_partial in found:
        parts = connection.execute("SELECT name FROM pragma_index_xinfo(?) WHERE key", (index,)).fetchall()
        columns = [name for (name,) in parts]
        total = ROWS // 20 if is_partial else ROWS
        left, numbers = total, [total]
        for column in columns:
            left = max(1, left // _FEW.get(column, _MANY))
            numbers.append(left)
        if is_unique:
            numbers[-1] = 1
        statistics.append((table, index, " ".join(map(str, numbers))))
    return statistics

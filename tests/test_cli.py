"""The command line as a process: what it prints, what it refuses, how it starts and stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from commands import client_kit
from tests.servers import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ACCOUNT = ["--name", "Acme", "--currency", "EUR", "--email", "olga@acme.test", "--user-name", "Olga"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A minimal environment with its own database."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"DATABASE_URL": f"sqlite:///{folder}/paythread.db", "PAYTHREAD_PASSWORD": "long-enough-1"} | more


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "cli.py", *arguments],
        cwd=ROOT,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def type_in(folder: Path, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run with this on the standard input and no password in the environment."""
    variables = environment(folder)
    del variables["PAYTHREAD_PASSWORD"]
    return subprocess.run(
        [sys.executable, "cli.py", *arguments],
        cwd=ROOT,
        env=variables,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def query(folder: Path, sql: str) -> list[Any]:
    with sqlite3.connect(f"file:{folder}/paythread.db?mode=ro", uri=True) as connection:
        found = connection.execute(sql).fetchall()
    connection.close()
    return found


def test_migrating_twice_applies_once(tmp_path: Path) -> None:
    first = run(tmp_path, "migrate")
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, "applied 0001_initial")
    assert run(tmp_path, "migrate").stdout == "nothing to apply\n"


def test_an_account_and_a_key_are_made_and_only_the_keys_hash_is_kept(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    made = run(tmp_path, "account", "create", *ACCOUNT)
    assert made.returncode == 0, made.stderr
    account_id = made.stdout.split()[1]
    assert account_id.startswith("acc_")
    key = run(tmp_path, "key", "create", "--account", account_id, "--name", "Shop", "--role", "ADMIN")
    assert key.stdout.startswith("ptk_")
    assert query(tmp_path, "SELECT email, role FROM user_account") == [("olga@acme.test", "OWNER")]
    [(name, hint, stored)] = query(tmp_path, "SELECT name, hint, token_hash FROM api_key")
    assert (name, hint) == ("Shop", key.stdout.strip()[-4:])
    assert key.stdout.strip() not in stored


def test_users_are_added_listed_changed_and_disabled(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    account_id = type_in(tmp_path, "long-enough-1\n", "account", "create", *ACCOUNT).stdout.split()[1]
    ana = ("--email", "Ana@acme.test", "--name", "Ana")
    added = type_in(tmp_path, "long-enough-2\n", "user", "add", *ana, "--role", "ADMIN")
    assert (added.returncode, added.stdout) == (0, "ana@acme.test  ADMIN  active  Ana\n"), added.stderr
    made = run(tmp_path, "user", "add", "--account", account_id, "--email", "b@acme.test", "--name", "Bo", "--generate")
    password = made.stdout.splitlines()[1].removeprefix("password  ")
    assert len(password) == 20
    assert password not in str(query(tmp_path, "SELECT password_hash FROM user_account"))
    assert run(tmp_path, "user", "role", "b@acme.test", "VIEWER").stdout == "b@acme.test  VIEWER  active  Bo\n"
    assert " VIEWER  disabled 2" in run(tmp_path, "user", "disable", "b@acme.test").stdout
    assert run(tmp_path, "user", "enable", "b@acme.test").stdout == "b@acme.test  VIEWER  active  Bo\n"
    hashes = query(tmp_path, "SELECT password_hash FROM user_account WHERE email = 'ana@acme.test'")
    assert type_in(tmp_path, "long-enough-3\n", "user", "password", "ana@acme.test").returncode == 0
    assert query(tmp_path, "SELECT password_hash FROM user_account WHERE email = 'ana@acme.test'") != hashes
    last = run(tmp_path, "user", "disable", "olga@acme.test")
    sentence = "Error: This is the account's last active OWNER; make another user OWNER first. (id)\n"
    assert (last.returncode, last.stderr) == (1, sentence)
    short = type_in(tmp_path, "\n", "user", "password", "ana@acme.test")
    assert (short.returncode, short.stderr) == (1, "Error: Use 10 to 256 characters. (password)\n")
    unknown = run(tmp_path, "user", "role", "nobody@acme.test", "OWNER")
    assert unknown.stderr == "Error: No user of this account has this address. (email)\n"
    link = run(tmp_path, "user", "reset-link", "ana@acme.test").stdout
    assert link.startswith("http://localhost:8000/reset-password#")
    assert link.strip().partition("#")[2] not in str(query(tmp_path, "SELECT * FROM user_token"))
    invited = run(tmp_path, "user", "invite", "--email", "cem@acme.test").stdout
    assert invited.startswith("http://localhost:8000/join#")
    assert query(tmp_path, "SELECT email, role, invited_by_id FROM invitation") == [("cem@acme.test", "AGENT", None)]
    assert run(tmp_path, "user", "list").stdout.splitlines() == [
        "ana@acme.test  ADMIN  active  Ana",
        "b@acme.test  VIEWER  active  Bo",
        "olga@acme.test  OWNER  active  Olga",
    ]
    for command in (("user", "add"), ("user", "password"), ("account", "create")):
        assert "--password" not in run(tmp_path, *command, "--help").stdout
    run(tmp_path, "account", "create", *ACCOUNT[:4], "--email", "o@other.test", "--user-name", "O")
    several = run(tmp_path, "user", "list")
    assert (several.returncode, several.stdout) == (1, "")
    assert several.stderr.startswith("Error: Choose the account with --account:\n  acc_")


def test_a_refusal_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    bad = run(tmp_path, "account", "create", *ACCOUNT, PAYTHREAD_PASSWORD="short")
    assert bad.returncode == 1
    assert bad.stderr == "Error: Use 10 to 256 characters. (password)\n"
    unknown = run(tmp_path, "key", "create", "--account", "acc_nothing", "--name", "x")
    assert unknown.stderr == "Error: There is nothing with this id. (account)\n"
    assert query(tmp_path, "SELECT count(*) FROM account") == [(0,)]


def test_unsafe_settings_are_refused_without_showing_a_secret(tmp_path: Path) -> None:
    bad = run(tmp_path, "migrate", SECRET_KEYS="tooshort-secret")
    assert bad.returncode == 1
    assert "SECRET_KEYS: one key or more, each of 16 characters or more" in bad.stderr
    assert "tooshort-secret" not in bad.stderr + bad.stdout
    production = run(tmp_path, "serve", ENVIRONMENT="production")
    assert production.returncode == 1
    assert "the demo key is public" in production.stderr


def test_the_committed_schema_is_the_codes(tmp_path: Path) -> None:
    checked = run(tmp_path, "schema", "--check")
    generated = [f"clients/generated/{file.name}" for file in client_kit.files("type Query { name: String }")]
    files = ["schema/schema.graphql", "schema/visitor.graphql", *generated]
    said = "".join(f"{file} is up to date\n" for file in files)
    assert (checked.returncode, checked.stdout) == (0, said), checked.stderr
    for file, options in (("schema.graphql", ()), ("visitor.graphql", ("--visitor",))):
        printed = run(tmp_path, "schema", *options)
        assert printed.stdout == (ROOT / "schema" / file).read_text(encoding="utf-8")


def test_rotation_says_how_many_secrets_of_each_table_it_sealed(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    assert run(tmp_path, "rotate-keys").stdout == (
        "processor_connection: 0\nchannel_connection: 0\npayment_request: 0\nattachment: 0\njob: 0\n"
    )


def test_an_audit_prints_what_differs_and_fails(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    account_id = run(tmp_path, "account", "create", *ACCOUNT).stdout.split()[1]
    clean = run(tmp_path, "audit", "--account", account_id)
    assert (clean.returncode, clean.stdout) == (0, "nothing differs\n")
    with sqlite3.connect(tmp_path / "paythread.db") as connection:
        (seq,) = connection.execute("SELECT event_seq FROM account").fetchone()
        connection.execute("UPDATE account SET event_seq = event_seq + 1")
    connection.close()
    found = run(tmp_path, "audit")
    assert (found.returncode, found.stdout) == (1, f"{account_id} log entries: stored 0, recomputed {seq + 1}\n")
    unknown = run(tmp_path, "audit", "--account", "acc_nothing")
    assert unknown.stderr == "Error: There is nothing with this id. (account)\n"


def test_reconciling_prints_its_sum_and_refuses_a_bad_time_and_a_strange_account(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    account_id = run(tmp_path, "account", "create", *ACCOUNT).stdout.split()[1]
    done = run(tmp_path, "reconcile", "--account", account_id, "--since", "2026-01-31")
    assert (done.returncode, done.stdout) == (0, "read 0, differed 0, not read 0\n"), done.stderr
    assert run(tmp_path, "reconcile", "--account", account_id, "--since", "yesterday").returncode == 2
    unknown = run(tmp_path, "reconcile", "--account", "acc_nothing", "--since", "2026-01-31T12:00:00")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: There is nothing with this id. (account)\n")


def test_dead_jobs_are_listed_requeued_and_dropped(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    ids = [f"00000000-0000-7000-8000-00000000000{n}" for n in range(4)]
    with sqlite3.connect(tmp_path / "paythread.db") as connection:
        connection.executemany(
            "INSERT INTO job (id, kind, payload, status, attempts, max_attempts, due_at, last_error, created_at)"
            " VALUES (?, ?, '{}', ?, 5, 5, '2026-11-27 10:00:00.000000+00:00', 'ValueError: no luck',"
            " '2026-11-27 10:00:00.000000+00:00')",
            [(ids[0], "a", "dead"), (ids[1], "b", "dead"), (ids[2], "b", "dead"), (ids[3], "b", "done")],
        )
    connection.close()
    listed = run(tmp_path, "jobs", "list").stdout.splitlines()
    assert listed == [
        f"{ids[n]}  2026-11-27 10:00  {kind}  5  ValueError: no luck" for n, kind in ((2, "b"), (1, "b"), (0, "a"))
    ]
    assert run(tmp_path, "jobs", "list", "--kind", "a").stdout.splitlines() == listed[2:]
    assert run(tmp_path, "jobs", "requeue", ids[0], ids[3]).stdout == "queued 1\n"
    assert run(tmp_path, "jobs", "drop", "--kind", "b").stdout == "dropped 2\n"
    assert run(tmp_path, "jobs", "list").stdout == "no dead jobs\n"
    left = query(tmp_path, "SELECT id, status, attempts FROM job ORDER BY id")
    assert left == [(ids[0], "queued", 0), (ids[3], "done", 5)]
    for wrong in ((), (ids[0], "--kind", "a"), ("no-id",)):
        refused = run(tmp_path, "jobs", "drop", *wrong)
        assert (refused.returncode, refused.stdout) == (2, "")


def test_a_taken_port_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run(tmp_path, "serve", "--port", str(port))
    assert refused.returncode == 1
    assert f"Can't listen on 127.0.0.1:{port}" in refused.stderr
    assert not (tmp_path / "paythread.db").exists()


def serve(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "cli.py", "serve", *arguments],
        cwd=ROOT,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def greeting(server: subprocess.Popen[str]) -> dict[str, str]:
    """The text that it prints once its port is open."""
    assert server.stdout is not None
    lines: list[str] = []
    for line in server.stdout:
        if not line.strip():
            if lines:
                break
            continue
        lines.append(line)
    return {name.strip(): value.strip() for name, value in (line.strip().split("  ", 1) for line in lines)}


def stop(server: subprocess.Popen[str]) -> int:
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=30)
    return server.returncode


@pytest.fixture
def port() -> str:
    return str(free_port())


def test_the_demo_is_served_as_printed_and_stops_in_good_order(tmp_path: Path, port: str) -> None:
    server = serve(tmp_path, "--demo", "--port", port)
    try:
        printed = greeting(server)
        base = f"http://localhost:{port}"
        assert {name: printed[name] for name in ("Paythread", "GraphQL", "GraphiQL", "phone", "site")} == {
            "Paythread": f"{base}/",
            "GraphQL": f"{base}/graphql",
            "GraphiQL": f"{base}/graphiql",
            "phone": f"{base}/demo/phone",
            "site": f"{base}/demo/site",
        }
        assert printed["sign in"] == "agent@demo.test / demo-demo-demo"
        ask = urllib.request.Request(  # noqa: S310 (loopback)
            printed["GraphQL"].replace("localhost", "127.0.0.1"),
            data=json.dumps({"query": "{ account { name } }"}).encode(),
            headers={
                "content-type": "application/json",
                "authorization": f"Bearer {printed['API key']}",
                "host": f"localhost:{port}",
            },
        )
        with urllib.request.urlopen(ask, timeout=30) as answer:  # noqa: S310 (loopback)
            assert json.load(answer)["data"] == {"account": {"name": "Acme Cleaning"}}
    finally:
        code = stop(server)
    assert code == 0
    assert query(tmp_path, "SELECT count(*) FROM job WHERE status = 'running'") == [(0,)]


def test_outside_of_development_no_password_is_printed(tmp_path: Path, port: str) -> None:
    server = serve(tmp_path, "--demo", "--port", port, ENVIRONMENT="test")
    try:
        printed = greeting(server)
    finally:
        stop(server)
    assert set(printed) == {"Paythread", "GraphQL", "GraphiQL", "phone", "site"}


def test_the_demo_does_not_start_where_settings_close_it(tmp_path: Path, port: str) -> None:
    server = serve(tmp_path, "--demo", "--port", port, DEMO="false")
    output, _ = server.communicate(timeout=60)
    assert server.returncode == 1
    assert "Error: The demo is closed" in output
    assert query(tmp_path, "SELECT count(*) FROM account") == [(0,)]


def test_a_worker_runs_jobs_says_how_it_is_and_stops_on_a_signal(tmp_path: Path, port: str) -> None:
    run(tmp_path, "migrate")
    worker = subprocess.Popen(
        [sys.executable, "cli.py", "worker"],
        cwd=ROOT,
        env=environment(tmp_path, WORKER_PORT=port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "Paythread worker: running jobs\n"
    for path in ("healthz", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
        ready = json.load(answer)
    assert (ready["status"], ready["checks"]["jobs"], ready["checks"]["disk"]) == ("ready", "ok", "ok")
    second = run(tmp_path, "worker", WORKER_PORT=port)
    assert (second.returncode, second.stderr.endswith("set WORKER_PORT (0: none).\n")) == (1, True)
    assert stop(worker) == 0
    assert query(tmp_path, "SELECT count(*) FROM tick")[0][0] > 0


def test_letters_are_taken_in_until_a_signal_and_a_taken_port_is_said(tmp_path: Path, port: str) -> None:
    run(tmp_path, "migrate")
    door = subprocess.Popen(
        [sys.executable, "cli.py", "lmtp", "--port", port],
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert door.stdout is not None
    assert door.stdout.readline() == f"Paythread LMTP: 127.0.0.1:{port}\n"
    second = run(tmp_path, "lmtp", "--port", port)
    assert second.returncode == 1
    assert f"Error: Can't listen on 127.0.0.1:{port}" in second.stderr
    assert stop(door) == 0


def test_a_contact_can_only_be_simulated_where_it_is_open_and_known(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    unknown = run(tmp_path, "simulate", "nobody@example.test", "SMS", "Hi")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: No such contact.\n")
    closed = run(tmp_path, "simulate", "nobody@example.test", "SMS", "Hi", SANDBOX="false")
    assert (closed.returncode, closed.stderr) == (1, "Error: The simulator is closed by the settings.\n")

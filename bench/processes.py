"""Child processes: start, wait, measure CPU time and memory as the system counts them, end. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
START_S = 60.0
STOP_S = 10.0


class Failed(Exception):
    """A target did not do what it was asked for; the message is one line for the report."""


class Child:
    """One server process in a group of its own, so that its children end with it."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> None:
        self.log = log
        self.started_at = time.perf_counter()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **env},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def cpu_s(self) -> float:
        """CPU seconds of the process and of its children so far."""
        return cpu_of_tree(self.pid)

    def rss(self) -> int:
        """Resident bytes of the process and of its children."""
        return sum(_rss(pid) for pid in tree(self.pid))

    def last_words(self) -> str:
        """The log's last line that is not empty."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it wrote nothing"

    def stop(self) -> None:
        """End the process's group: politely, then for good."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.ended():
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)


def wait_for_port(child: Child, port: int, *, timeout_s: float = START_S) -> None:
    """Wait until the port accepts connections. Raises: Failed."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if child.ended():
            raise Failed(f"ended at its start: {child.last_words()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise Failed(f"no answer within {timeout_s:.0f} s")


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process, of its living descendants, and of those that it has waited for."""
    return sum(_cpu(one) for one in tree(pid))


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    # utime, stime, and the same of children that it has waited for
    return sum(map(int, fields[11:15])) * TICK_S if fields is not None else 0.0


def _rss(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * PAGE if fields is not None else 0


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name; the first is the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None


def free_port() -> int:
    """A free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def allow_many_files() -> int:
    """Raise this process's limit of open files as far as the system allows; returns it. Children inherit it."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most

"""A project that uses the packed client kit, and its examples as processes that a test drives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "clients"
INSTALLED = ROOT / "tests" / "clients"
EXAMPLES = ("apollo", "urql", "relay", "plain")
TAG = re.compile(r"graphql`\s*(?:query|subscription|mutation|fragment)\s+(\w+)[^`]*`", re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def link_libraries(project: Path) -> None:
    """Let a project import what tests/clients/kit depends on."""
    modules = project / "node_modules"
    modules.mkdir(exist_ok=True)
    for name in (*json.loads((INSTALLED / "kit" / "package.json").read_text())["dependencies"], "wonka"):
        nested = INSTALLED / "kit" / "node_modules" / name
        place = modules / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(nested if nested.exists() else INSTALLED / "node_modules" / name)


def build_project(tarball: Path, project: Path) -> Path:
    """Unpack the package, link the libraries, and compile Relay's documents as a bundler does."""
    link_libraries(project)
    run(["tar", "-xzf", str(tarball), "-C", str(project / "node_modules")], project)
    package = project / "node_modules" / "paythread-client"
    (project / "node_modules" / "package").rename(package)
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    shutil.copytree(package / "examples", project / "src")
    shutil.copy(INSTALLED / "kit" / "drive.mjs", project)
    config = json.loads((package / "generated" / "relay.config.json").read_text())
    config |= {"src": "./src", "language": "javascript", "eagerEsModules": True}
    (project / "relay.config.json").write_text(json.dumps(config))
    run(["node", "node_modules/relay-compiler/cli.js", "relay.config.json"], project)
    _replace_tags(project / "src" / "relay-documents.js")
    return project


def _replace_tags(file: Path) -> None:
    """As Relay's Babel plugin does: a tagged document becomes its compiled artifact."""
    names = []

    def artifact(tag: re.Match[str]) -> str:
        names.append(tag[1])
        return tag[1]

    text = TAG.sub(artifact, file.read_text())
    imports = [f'import {name} from "./__generated__/{name}.graphql.js";' for name in names]
    file.write_text("\n".join([*imports, text]))


class Example:
    """One running example."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, command: str, **parameters: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **parameters}).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 20)
        if not line:
            raise AssertionError((await self._process.stderr.read()).decode()[-4000:])
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def started(project: Path, example: str, given: Mapping[str, Any]) -> AsyncIterator[Example]:
    """Run an example in development mode, in which the libraries warn."""
    modules = {name: str(project / "src" / f"{name}.js") for name in EXAMPLES}
    package = project / "node_modules" / "paythread-client"
    given = {**given, "modules": modules, "introspection": str(package / "generated" / "introspection.json")}
    process = await asyncio.create_subprocess_exec(
        "node",
        "--conditions=development",
        "drive.mjs",
        example,
        json.dumps(given),
        cwd=project,
        env={**os.environ, "NODE_ENV": "development"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=4 * 1024 * 1024,
    )
    client = Example(process)
    try:
        await client.answer()
        yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Wire:
    """A TCP proxy in front of the server: its address stays while servers come and go, and it can cut every connection."""

    def __init__(self) -> None:
        self.port = 0
        self.target: int | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Cut every connection and accept none."""
        target, self.target = self.target, None
        self.cut()
        try:
            yield
        finally:
            self.target = target

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self.target is None:
                writer.transport.abort()
                return
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(to_server)
        for source, sink in ((reader, to_server), (from_server, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._open.discard(sink)
            sink.close()

"""Servers and workers as processes behind a plain load balancer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2

from tests.flows import harness
from tests.flows.harness import Process, Product

LOOK_S = 0.1  # between two looks of the balancer at /readyz


class Balancer:
    """Passes each TCP connection to the next server that is ready."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.ready = set(ports)
        self.connections = dict.fromkeys(self.ports, 0)
        self._next = 0
        self._passing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The balancer's base URL."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        watch = asyncio.create_task(self._look())
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in (watch, *self._passing):
                task.cancel()
            await asyncio.gather(watch, *self._passing, return_exceptions=True)

    async def _look(self) -> None:
        async with httpx2.AsyncClient(timeout=5) as http:
            while True:
                for port in self.ports:
                    ready = False
                    with contextlib.suppress(httpx2.TransportError):
                        ready = (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                    (self.ready.add if ready else self.ready.discard)(port)
                await asyncio.sleep(LOOK_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self.ports:
            port = self.ports[self._next % len(self.ports)]
            self._next += 1
            if port not in self.ready:
                continue
            with contextlib.suppress(OSError):
                upstream = await asyncio.open_connection("127.0.0.1", port)
                self.connections[port] += 1
                await asyncio.gather(_copy(reader, upstream[1]), _copy(upstream[0], writer))
                return
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


@dataclass
class Cluster:
    balancer: Balancer
    servers: list[Process]
    workers: list[Process]
    product: Product  # through the balancer
    direct: list[Product]  # one of each server


@asynccontextmanager
async def cluster(database_url: str, redis_url: str, *, workers: int, **more: str) -> AsyncIterator[Cluster]:
    """Two servers without jobs and some workers, all started and ready."""
    ports = [harness.free_port() for _ in range(2 + workers)]
    balancer = Balancer(ports[:2])
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(balancer.running())
        shared = {"PUBLIC_URL": url, "SANDBOX_URL": url, "RUN_JOBS": "false", "DATABASE_POOL_SIZE": "5", **more}
        environ = harness.environment(0, database_url, redis_url, **shared)
        servers = [Process(port, {**environ, "PORT": str(port)}) for port in ports[:2]]
        others = [
            Process(port, {**environ, "PORT": "8000", "WORKER_PORT": str(port)}, command="worker") for port in ports[2:]
        ]
        for process in (*servers, *others):
            stack.push_async_callback(process.kill)
        await asyncio.gather(*(process.start() for process in (*servers, *others)))
        through = [Product(address) for address in (url, *(f"http://127.0.0.1:{port}" for port in ports[:2]))]
        for product in through:
            stack.push_async_callback(product.aclose)
        yield Cluster(balancer, servers, others, through[0], through[1:])

"""The network between Kafka and its clients, in the hands of a test: refused, delayed, half-open, answers changed.

A broker tells its clients where it listens, so a proxy has to change what it says: the ports in the answers that name
brokers are replaced by its own. It knows where requests and answers begin and end, and of which kind each is.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType

from tests.services.ports import HOST

METADATA, OFFSET_COMMIT, FIND_COORDINATOR = 3, 8, 10
NAMES_BROKERS = (METADATA, FIND_COORDINATOR)

Answer = bytes
"""Of a request, after its length: the number of the request (4 bytes), and what the broker says."""


class Proxy:
    """A port of its own for each broker; while it is entered. Its methods may be called from any thread.

    Args:
        bootstrap: the brokers' addresses, all of them, without encryption.
    """

    def __init__(self, bootstrap: str) -> None:
        self._behind = [int(address.rpartition(":")[2]) for address in bootstrap.split(",")]
        self._fronts: dict[int, int] = {}
        self._links: set[Link] = set()
        self._cut = threading.Event()
        self.frozen = False
        self.delay = 0.0
        self.changes: Mapping[int, Callable[[Answer], Answer]] = {}

    @property
    def bootstrap(self) -> str:
        """The same brokers, through here."""
        return ",".join(f"{HOST}:{self._fronts[port]}" for port in self._behind)

    def cut(self) -> None:
        """Ends all connections, and refuses new ones until ``mend()``."""
        self._cut.set()
        self._call(self._end_links)

    def freeze(self) -> None:
        """Half-open: connections stay, new ones are taken, and nothing comes through.

        A connection on which something was swallowed stays mute for ever, as one whose other end has lost its memory.
        """
        self.frozen = True

    def slow_down(self, seconds: float) -> None:
        """Each answer takes so much longer."""
        self.delay = seconds

    def change(self, kind: int, change: Callable[[Answer], Answer]) -> None:
        """Answers to requests of this kind (the API key of Kafka's protocol) are replaced."""
        self.changes = {**self.changes, kind: change}

    def mend(self) -> None:
        """The network is well again."""
        self._cut.clear()
        self.frozen = False
        self.delay = 0.0
        self.changes = {}

    def translate(self, answer: Answer) -> Answer:
        """Names the ports of the proxy instead of the brokers' own."""
        for behind, front in self._fronts.items():
            told, ours = (HOST.encode() + struct.pack(">i", port) for port in (behind, front))
            answer = answer.replace(told, ours)

        return answer

    # The thread

    def __enter__(self) -> Proxy:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._call(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    async def _listen(self) -> None:
        self._servers = []
        for behind in self._behind:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: int = behind) -> None:
                await self._serve(reader, writer, behind)

            server = await asyncio.start_server(serve, HOST, 0)
            self._servers.append(server)
            self._fronts[behind] = server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()

        self._end_links()
        while self._links:
            await asyncio.wait([link.task for link in self._links])

    def _end_links(self) -> None:
        for link in self._links:
            link.task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = Link(self, task)
        self._links.add(link)
        try:
            if not self._cut.is_set():
                await link.run(reader, writer, behind)
        except asyncio.CancelledError:
            pass  # cut, or closed
        finally:
            self._links.discard(link)
            writer.transport.abort()


class Link:
    """One connection of a client, and ours to the broker for it."""

    def __init__(self, proxy: Proxy, task: asyncio.Task[None]) -> None:
        self._proxy = proxy
        self._kinds: dict[bytes, int] = {}
        self._mute = False
        self.task = task

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: int) -> None:
        """Until one of both ends."""
        try:
            answers, requests = await asyncio.open_connection(HOST, behind)
        except OSError:
            return

        ways = [asyncio.ensure_future(self._to(requests, reader)), asyncio.ensure_future(self._back(writer, answers))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()

            await asyncio.wait(ways)
            requests.transport.abort()

    async def _to(self, broker: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while request := await _frame(reader):
                kind, _ = struct.unpack(">hh", request[:4])
                self._kinds[request[4:8]] = kind
                if not self._swallows():
                    await _send(broker, request)

    async def _back(self, client: asyncio.StreamWriter, broker: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while answer := await _frame(broker):
                kind = self._kinds.pop(answer[:4], None)
                if kind in NAMES_BROKERS:
                    answer = self._proxy.translate(answer)

                if kind is not None and kind in self._proxy.changes:
                    answer = self._proxy.changes[kind](answer)

                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)

                if not self._swallows():
                    await _send(client, answer)

    def _swallows(self) -> bool:
        self._mute = self._mute or self._proxy.frozen
        return self._mute


def failed_commit(code: int) -> Callable[[Answer], Answer]:
    """The answer to an OffsetCommit (version 3) with this error for each partition."""

    def change(answer: Answer) -> Answer:
        changed = bytearray(answer)
        at = 8  # after the number of the request and the throttle time
        (topics,) = struct.unpack_from(">i", answer, at)
        at += 4
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", answer, at)
            at += 2 + length
            (partitions,) = struct.unpack_from(">i", answer, at)
            at += 4
            for _ in range(partitions):
                struct.pack_into(">h", changed, at + 4, code)
                at += 6

        return bytes(changed)

    return change


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
    await writer.drain()

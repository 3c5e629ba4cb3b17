"""Many clients in one cheap process: `python -m chaos.crowd` reads a JSON object (see `Orders`) and prints what its clients saw as another.

WebSocket and Socket.IO by hand, on asyncio streams: a library would cost more than the server that is to be tried. `honest` clients read
everything; the others do what no client should.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

TEXT, BINARY, CLOSE = 1, 2, 8
FIN, MASKED = 0x80, 0x80
PAUSE = 0.1
HUGE = 2 << 20
BROKEN = (OSError, EOFError, asyncio.IncompleteReadError)


@dataclass(frozen=True)
class Orders:
    """Whom to send where. `watch` is a job whose lines have a number and the time, `flood` one of many large lines.

    It all ends when `until` (time.time) has come; honest clients stay until the jobs have ended.
    """

    port: int
    token: str
    watch: str
    flood: str
    until: float
    honest: int = 0
    silent: int = 0
    returning: int = 0
    subscribing: int = 0
    """Subscriptions by one client."""
    garbling: int = 0
    seed: int = 0


@dataclass
class Report:
    delays: list[float] = field(default_factory=list)
    """Seconds from when a line was written until an honest client had it; and how late a mere timer was meanwhile."""
    lateness: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lines: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of which job each honest client saw how many lines."""
    connections: dict[str, int] = field(default_factory=dict)
    """Of each kind of client that comes more than once."""
    refused: int = 0
    subscriptions: int = 0
    garbage: int = 0

    def came(self, kind: str) -> None:
        self.connections[kind] = self.connections.get(kind, 0) + 1


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, *, buffer: int = 1 << 16) -> Connection:
        ours = socket.socket()
        # Small where nothing is read, so that the system keeps little of it.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        ours.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(ours, ("127.0.0.1", port))
        except OSError:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=buffer)
        made = cls(reader, writer)
        request = f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        request += "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer:
            raise EOFError(answer[:100].decode())
        return made

    async def join(self, token: str) -> None:
        """Raises EOFError when the server does not let us in."""
        await self.receive()
        self.send("40" + json.dumps({"token": token}))
        if not (answer := await self.receive()).startswith("40"):
            raise EOFError(answer[:200])

    def send(self, text: str | bytes, *, opcode: int = TEXT) -> None:
        data = text.encode() if isinstance(text, str) else text
        size = len(data)
        length = bytes([MASKED | size]) if size < 126 else bytes([MASKED | 126]) + size.to_bytes(2) if size < 1 << 16 else None
        # A mask of zeros leaves the text as it is.
        self.writer.write(bytes([FIN | opcode]) + (length or bytes([MASKED | 127]) + size.to_bytes(8)) + b"\0\0\0\0" + data)

    def emit(self, event: str, payload: Any, *, ack: int | str = "") -> None:
        self.send(f"42{ack}{json.dumps([event, payload])}")

    async def receive(self) -> str:
        """The next text; pings are answered. Raises EOFError at the end."""
        while True:
            first, second = await self.reader.readexactly(2)
            size = second if second < 126 else int.from_bytes(await self.reader.readexactly(2 if second == 126 else 8))
            data = await self.reader.readexactly(size)
            if first & 15 == CLOSE:
                raise EOFError("closed")
            if data == b"2":
                self.send("3")
            elif first & 15 == TEXT:
                return data.decode()

    def cut(self) -> None:
        self.writer.transport.abort()


async def honest(orders: Orders, report: Report, name: str) -> None:
    """Sees a whole log, and how late each line came. The first one watches the flood, whose lines do not say when they were written."""
    job_id = orders.flood if name == "honest 0" else orders.watch
    connection = await Connection.open(orders.port, buffer=1 << 20)
    await connection.join(orders.token)
    connection.emit("subscribe", {"job_id": job_id, "after_seq": 0}, ack=1)
    seen = 0
    while True:
        text = await connection.receive()
        now = time.time()
        if text.startswith("43"):
            if not (answer := json.loads(text[text.index("[") :])[0])["ok"]:
                report.faults.append(f"{name} was refused: {answer['problem']['detail']}")
            continue
        event, payload = json.loads(text[2:])
        if event == "log":
            if payload["first_seq"] != seen + 1:
                report.faults.append(f"{name} saw line {payload['first_seq']} after {seen}")
            seen += len(payload["lines"])
            if job_id == orders.watch:
                # Only what was written while everybody was there is timed.
                report.delays += [now - at for line in payload["lines"] if START < (at := float(line.split()[1])) < orders.until]
        elif event == "error":
            report.faults.append(f"{name} was sent an error: {payload['problem']['detail']}")
        elif event == "complete":
            if payload["log_lines"] != seen:
                report.faults.append(f"{name} saw {seen} of {payload['log_lines']} lines")
            break
    report.lines[name] = (job_id, seen)
    connection.cut()


async def silent(orders: Orders, report: Report, _name: str) -> None:
    """Subscribes to everything that is to be had, and never reads again."""
    connection = await Connection.open(orders.port, buffer=1 << 12)
    await connection.join(orders.token)
    report.came("silent")
    for what in ({"job_id": orders.flood, "after_seq": 0}, {"job_id": orders.watch}, {"all": True}):
        connection.emit("subscribe", what, ack=1)
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(orders.until - time.time())
    connection.cut()


async def returning(orders: Orders, report: Report, _name: str) -> None:
    """Comes and goes, as soon as it has come."""
    connection = await Connection.open(orders.port)
    with suppress(asyncio.TimeoutError):
        await connection.join(orders.token)
        report.came("returning")
        connection.emit("subscribe", {"job_id": orders.flood, "after_seq": 0}, ack=1)
        await asyncio.sleep(PAUSE)
    if random.random() < 0.5:
        connection.send("41")
        connection.writer.close()
    else:
        connection.cut()


async def subscribing(orders: Orders, report: Report, _name: str) -> None:
    """One client, to the same job, again and again: as fast as it is answered, now and then from the first line on."""
    connection = await Connection.open(orders.port, buffer=1 << 18)
    await connection.join(orders.token)
    for number in range(orders.subscribing):
        connection.emit("subscribe", {"job_id": orders.watch, "after_seq": 1 << 40 if number % 50 else 0}, ack=number)
        while not (await connection.receive()).startswith(f"43{number}["):
            pass
        report.subscriptions += 1
    connection.cut()


async def garbling(orders: Orders, report: Report, _name: str) -> None:
    """Everything that no client sends; a connection that the server ends is opened again."""
    connection = await Connection.open(orders.port, buffer=1 << 18)
    if random.random() < 0.3:
        connection.emit("subscribe", {"job_id": orders.watch})  # before it is let in
    await connection.join(orders.token)
    report.came("garbling")

    async def read() -> None:
        with suppress(*BROKEN):
            while True:
                await connection.receive()

    reading = asyncio.create_task(read())
    try:
        for _ in range(40):
            random.choice(GARBAGE)(connection, orders)
            report.garbage += 1
            await connection.writer.drain()
            await asyncio.sleep(0.005)
            if reading.done():
                break
    finally:
        reading.cancel()
        connection.cut()


GARBAGE: list[Callable[[Connection, Orders], None]] = [
    lambda c, o: c.send("40" + json.dumps({"token": o.token})),  # a second CONNECT
    lambda c, o: c.send("40/elsewhere," + json.dumps({"token": o.token})),
    lambda c, o: c.emit("subscribe", {"job_id": "no such"}, ack=5),
    lambda c, o: c.emit("subscribe", [o.watch, None, {"deep": [[[[]]]]}]),
    lambda c, o: c.emit("subscribe", {"job_id": o.watch, "after_seq": -1}),
    lambda c, o: c.emit("unsubscribe", {"job_id": o.flood}),
    lambda c, o: c.emit("no such event", {"a": 1}, ack=7),
    lambda c, o: c.emit("complete", {"job_id": o.watch, "status": "completed"}),
    lambda c, o: c.emit("x" * 10_000, "y" * 10_000),
    lambda c, o: c.emit("subscribe", {"job_id": "z" * HUGE}),
    lambda c, o: c.send("43" + str(random.randrange(1 << 40)) + "[]"),  # an acknowledgement of what was never asked
    lambda c, o: c.send("43"),
    lambda c, o: c.send('451-["subscribe",{"_placeholder":true,"num":0}]'),
    lambda c, o: c.send(os.urandom(200), opcode=BINARY),
    lambda c, o: c.send(b"\x04" + os.urandom(5000), opcode=BINARY),
    lambda c, o: c.send(random.randbytes(30).decode("latin-1")),
    lambda c, o: c.send("42" + "[" * 5000),
    lambda c, o: c.send('42["subscribe",{"job_id":'),
    lambda c, o: c.send("2probe"),
    lambda c, o: c.send("6"),
    lambda c, o: c.send(""),
    lambda c, o: c.send(b"\xff\xfe\xfd"),  # no UTF-8 in a text
]


async def again_and_again(client: Callable[[Orders, Report, str], Awaitable[None]], orders: Orders, report: Report, name: str) -> None:
    while time.time() < orders.until:
        try:
            await client(orders, report, name)
        except BROKEN:
            report.refused += 1
            await asyncio.sleep(PAUSE)


async def to_the_end(client: Callable[[Orders, Report, str], Awaitable[None]], orders: Orders, report: Report, name: str) -> None:
    try:
        await client(orders, report, name)
    except BROKEN as error:
        report.faults.append(f"{name} lost its connection: {type(error).__name__}: {error}")


async def watch_the_clock(report: Report) -> None:
    while True:
        due = time.monotonic() + 0.02
        await asyncio.sleep(0.02)
        report.lateness.append(time.monotonic() - due)


async def crowd(orders: Orders) -> Report:
    report = Report()
    once = [(honest, orders.honest), (subscribing, 1 if orders.subscribing else 0)]
    ever = [(silent, orders.silent), (returning, orders.returning), (garbling, orders.garbling)]
    tasks = [to_the_end(client, orders, report, f"{client.__name__} {number}") for client, count in once for number in range(count)]
    tasks += [again_and_again(client, orders, report, f"{client.__name__} {number}") for client, count in ever for number in range(count)]
    running = [asyncio.create_task(task) for task in tasks]
    print("here", file=sys.stderr, flush=True)
    clock = asyncio.create_task(watch_the_clock(report))
    await asyncio.gather(*running)
    clock.cancel()
    return report


START = time.time() + 0.5
if __name__ == "__main__":
    orders = Orders(**json.loads(sys.stdin.read()))
    random.seed(orders.seed)
    print(json.dumps(asdict(asyncio.run(crowd(orders)))))

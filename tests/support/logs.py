"""Logs as tests write them: through the writer that a supervisor uses."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from jobs.bootstrap import make_engine
from jobs.model import JobType, LogChunk, Stream, Submission
from jobs.store.database import Database
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases
from jobs.store.log_writer import LogBlock, LogWriter, Transaction
from jobs.store.schema import jobs, log_chunks


def block(data: bytes, *, stream: Stream = Stream.STDOUT, at: int = 0) -> LogBlock:
    """Lines, of which the last may have no end."""
    return LogBlock(stream, at, data.count(b"\n") + (data != b"" and not data.endswith(b"\n")), data)


def append(database: Database, writer: LogWriter, *parts: bytes, stream: Stream = Stream.STDOUT, at: int = 0, last: bool = False) -> None:
    """Each part in a transaction of its own; with `last`, the log is brought below its cap after all of them."""

    def write(transaction: Transaction) -> None:
        database.write(transaction, durable=False)

    for part in parts:
        writer.append(write, [block(part, stream=stream, at=at)])
    if last:
        writer.append(write, [], last=True)


class ReusedLog:
    """The log of one running job in a real store. Each writer begins an empty one: for tests that write many logs."""

    def __init__(self, database: Database) -> None:
        self.database = database
        engine = make_engine(database.url)
        new = NewJob(Submission(JobType.TASK, {"task": "any"}), "default", None, None, "tests")
        Store(database, engine).submit(new, max_pending=1)
        (self._lease,) = engine.claim(database, worker_id="w", host="here", queues=["default"], slots=1)
        Leases(database, engine).take(self._lease, supervisor={})

    def new_writer(self, *, cap: int) -> LogWriter:
        """Of an empty log that nobody watches."""

        def empty(connection: Connection) -> None:
            connection.execute(delete(log_chunks))
            connection.execute(update(jobs).values(log_lines=0, log_bytes=0, dropped_first=None, dropped_last=None))

        self.database.write(empty, durable=False)
        writer = LogWriter(self._lease, cap=cap)
        writer.READ_SECONDS = 0.0
        return writer

    def chunks(self, *, after_seq: int = 0) -> list[LogChunk]:
        """What the store has of the log, in order."""
        query = select(log_chunks).where(log_chunks.c.first_seq > after_seq).order_by(log_chunks.c.first_seq)
        rows = self.database.read(lambda connection: connection.execute(query).all())
        return [LogChunk(row.job_id, row.first_seq, row.lines, row.at, Stream(row.stream), row.data) for row in rows]

"""A PostgreSQL database that MLflow keeps its tables in: connected to, locked, made."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from studies import address as addresses
from studies.address import Address
from studies.record import StudyError
from studies.store import holder
from studies.store.holder import Holder

NEEDED = "psycopg is not installed, which a PostgreSQL database needs: pip install 'weight-studies[cluster]'"

HALF = ""
"""The version of tables of which MLflow has made some: these are there at once, then all others."""

_SESSIONS: dict[tuple[str, int], "Session"] = {}


class Connection:
    """What `sqlite3.Connection` is to those who write by SQL, within a transaction."""

    def __init__(self, made):
        self.made = made

    def execute(self, query: str, values: Sequence = ()) -> Any:
        """Execute a query that has a question mark for each value."""
        return self.made.execute(query.replace("?", "%s"), [_plain(value) for value in values])

    def executemany(self, query: str, rows: Iterable[Sequence]) -> None:
        """Execute a query once for each row of values."""
        with self.made.cursor() as cursor:
            cursor.executemany(query.replace("?", "%s"), [[_plain(value) for value in row] for row in rows])


def _plain(value):
    """A value as PostgreSQL takes it, whose texts have no zeros."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


class Session:
    """This process's connection to a database, made anew when it was lost; it has the locks of the studies that this
    process drives, so that what is written through it nobody else writes.
    """

    def __init__(self, address: Address):
        self.address, self.made = address, None
        self.held: dict[str, Holder] = {}

    def connected(self) -> Any:
        """The connection, of psycopg.

        Raises:
            StudyError: a study that this process drives was taken by another while there was none.
        """
        if self.made is not None and (self.made.closed or self.made.broken):
            self.made = None
        if self.made is None:
            made = connect(self.address)
            try:
                for study, mine in self.held.items():
                    self._take(made, study, mine)
            except BaseException:
                made.close()
                raise
            self.made = made
        return self.made

    def fresh(self) -> Any:
        """The connection, tried first: one that was idle may be lost, and nothing that was begun with it."""
        import psycopg

        try:
            self.connected().execute("SELECT 1")
        except psycopg.OperationalError:
            self.made = None
        return self.connected()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are all there in the end, or none of them."""
        made = self.connected()
        with made.transaction():
            yield Connection(made)
        self._sign(made)

    def lock(self, study: str, mine: Holder) -> None:
        """Have a study for this process alone, or for the jobs of its sweep, until `unlock`, or this process's death.

        Raises:
            StudyError: another process has it.
        """
        made = self.fresh()
        self._take(made, study, mine)
        self.held[study] = mine
        self._sign(made)

    def unlock(self, study: str) -> None:
        """Let others have a study."""
        import psycopg

        mine = self.held.pop(study)
        with suppress(psycopg.Error):  # then it is lost with the connection
            if self.made is not None and not self.made.closed:
                shared = "_shared" * bool(mine.sweep)
                self.made.execute(f"SELECT pg_advisory_unlock{shared}(%s)", [_number(study)])

    def _sign(self, made) -> None:
        """Have our last query say who we are, as long as we live, to others who look at what connections do."""
        for mine in self.held.values():
            made.execute(f"SELECT 1 /* {_comment(mine)} */", [])

    def _take(self, made, study: str, mine: Holder) -> None:
        deadline, known = time.monotonic() + 1, Holder()  # a job that is claiming it for the same sweep is done by then
        while not self._try(made, study, mine):
            found = _holder(made, study)
            if found and found[1].pid:
                known = found[1]
            if found and _is_same(found[1], mine):  # of a connection that we have lost, and the database has not
                with suppress(Exception):
                    made.execute("SELECT pg_terminate_backend(%s)", [found[0]])
            elif time.monotonic() > deadline:
                raise holder.refusal(study, self.address, known, "tracking.uri=ADDRESS")
            time.sleep(0.05)

    def _try(self, made, study: str, mine: Holder) -> bool:
        """Lock a study alone, or with the jobs of one sweep."""
        number, said = _number(study), _comment(mine)
        if _is_given(made, f"SELECT pg_try_advisory_lock(%s) /* {said} */", number):
            if mine.sweep:
                made.execute(f"SELECT pg_advisory_lock_shared(%s) /* {said} */", [number])
                made.execute(f"SELECT pg_advisory_unlock(%s) /* {said} */", [number])
            return True
        if not mine.sweep:
            return False
        found = _holder(made, study)
        same = found is not None and found[1].sweep == mine.sweep
        return same and _is_given(made, f"SELECT pg_try_advisory_lock_shared(%s) /* {said} */", number)


def _comment(mine: Holder) -> str:
    """Who has a lock, as a comment in a query, of which a database shows the first 1,000 signs."""
    text = mine.text
    while len(text) > 900:
        mine = replace(mine, command=mine.command[: len(mine.command) // 2])
        text = mine.text
    return text.replace("*/", "* /").replace("/*", "/ *").replace("%", "%%")


def _holder(made, study: str) -> tuple[int, Holder] | None:
    """The backend that has a study, and who that is; None if nobody has it any more."""
    number = _number(study) % 2**64
    query = (
        "SELECT pid, query FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 1 AND pid <> pg_backend_pid()"
    )
    found = made.execute(query, [number >> 32, number % 2**32]).fetchone()
    return found and (found[0], holder.read(found[1].partition("/* ")[2].rpartition(" */")[0]))


def session(address: Address) -> Session:
    """This process's session with a database."""
    return _SESSIONS.setdefault((address.uri, os.getpid()), Session(address))


def connect(address: Address) -> Any:
    """A connection, of psycopg, each of whose statements is a transaction.

    Raises:
        StudyError: psycopg is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise StudyError(f"{address}: {NEEDED}") from error
    return psycopg.connect(address.uri, autocommit=True, **addresses.connection(address))


def version(address: Address) -> str | None:
    """The version of MLflow's tables, None if there are none yet.

    Raises:
        StudyError: there are tables of something else.
    """
    found = _seen(address)
    if found == HALF:
        with alone(address):  # until who is making them is done
            found = _seen(address)
    return None if found == HALF else found


def _seen(address: Address) -> str | None:
    """What `version` gives; `HALF` where MLflow has not made all its tables, or has been killed as it did."""
    made = session(address).fresh()
    tables = {name for (name,) in made.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")}
    if not tables:
        return None
    if not {"experiments", "runs", "metrics"} <= tables:
        raise StudyError(
            f"{address}: that database has tables, and they are none of MLflow's: name an empty one of its own, made "
            f"with createdb"
        )
    found = made.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
    return found[0] if found else HALF


def make(address: Address) -> None:
    """Have MLflow make its tables, unless they are there."""
    if version(address) is not None:
        return
    with alone(address):  # of drivers that start together one
        if _seen(address) not in (None, HALF):
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        files = address.files.as_uri() if address.files else "mlflow-artifacts:/"
        SqlAlchemyStore(mlflows(address), files)


@contextmanager
def alone(address: Address) -> Iterator[None]:
    """Keep other processes from what is done in here."""
    with connect(address) as made:  # of its own: it holds the lock while the session writes
        made.execute("SELECT pg_advisory_lock(%s)", [_number("")])
        yield


def mlflows(address: Address) -> str:
    """A database's address as MLflow has it."""
    return address.uri.replace("postgresql://", "postgresql+psycopg://", 1)


def _number(study: str) -> int:
    """What an advisory lock on a study is taken on."""
    digest = hashlib.sha256(f"weight-studies {study}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _is_given(made, query: str, number: int) -> bool:
    return bool(made.execute(query, [number]).fetchone()[0])


def _is_same(one: Holder, other: Holder) -> bool:
    return bool(one.born) and (one.machine, one.pid, one.born) == (other.machine, other.pid, other.born)

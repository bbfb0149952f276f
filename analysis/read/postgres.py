"""A store in a PostgreSQL database, read from its tables, and from the folder of its files where that is reached."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from analysis.read.runs import HasFiles, Run, by_client, by_sql, client, content, path_of
from studies import address, contract, waiting
from studies.address import Address
from studies.record import StudyError

T = TypeVar("T")

HAS_TABLES = "SELECT to_regclass('alembic_version') IS NOT NULL AND to_regclass('latest_metrics') IS NOT NULL"


class Database:
    """A store in a PostgreSQL database; one that has no tables has no studies.

    Raises:
        StudyError: it does not answer, or refuses.
    """

    def __init__(self, place: Address):
        self.address = place
        self._asked(lambda connection: None)

    def __str__(self):
        return self.address

    def studies(self) -> list[str]:
        """The names of its studies."""
        names = (
            f"SELECT COALESCE(study, name) FROM experiments LEFT JOIN ({contract.OURS}) AS ours USING (experiment_id) "
            f"WHERE lifecycle_stage = 'active' AND name <> 'Default'"
        )

        def read(connection):
            return {name for (name,) in connection.execute(names)} if self._version(connection) else set()

        return sorted(self._asked(read))

    def runs(self, study: str, metrics: Iterable[str] = (), params: bool = False, role: str = "") -> list[Run]:
        """The runs of a study, with the last values of these metrics, and with their params only if asked for.

        Args:
            role: whose are wanted, so that others need not be read, which all the same may be there.
        """

        def read(connection):
            version = self._version(connection)
            if version in contract.SCHEMAS:
                return by_sql(connection, study, tuple(metrics), params, role, _place)
            return None if version else []

        found = self._asked(read)
        if found is not None:
            return found
        from mlflow.exceptions import MlflowException

        uri = self.address.uri.replace("postgresql://", "postgresql+psycopg://", 1)
        try:
            return waiting.asked(self.address, lambda: by_client(client(uri), study, metrics, _place))
        except MlflowException as error:
            raise StudyError(
                f"{self.address} cannot be read by this MLflow ({waiting.reason(error)}): name another store, or bring "
                f"it up to date with mlflow db upgrade"
            ) from error

    def content(self, run: HasFiles, name: str) -> bytes:
        """One of a run's files.

        Raises:
            StudyError: it is not there.
        """
        return content(self.path(run, name), self.address)

    def has(self, run: HasFiles, name: str) -> bool:
        """Whether a file is among a run's."""
        return self.path(run, name).is_file()

    def path(self, run: HasFiles, name: str) -> Path:
        """One of a run's files.

        Raises:
            StudyError: a server has them.
        """
        if not run.folder.is_absolute():
            raise StudyError(
                f"{self.address}: {name} of run {run.run_id} is kept by the MLflow server that it was written through: "
                f"read it there, by --root http://HOST:PORT"
            )
        return run.folder / name

    def _version(self, connection) -> str | None:
        if not connection.execute(HAS_TABLES).fetchone()[0]:
            return None
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]

    def _asked(self, read: Callable[[Any], T]) -> T:
        """What is read in one connection, which cannot write."""
        try:
            import psycopg
        except ImportError as error:
            raise StudyError(
                f"{self.address}: psycopg is not installed, which a PostgreSQL database needs: "
                f"pip install 'weight-studies[cluster]'"
            ) from error

        def connected():
            with psycopg.connect(self.address.uri, autocommit=True, **address.connection(self.address)) as made:
                made.read_only = True
                return read(_Reader(made))

        try:
            return waiting.asked(self.address, connected)
        except psycopg.Error as error:
            if said := waiting.trouble(self.address, error):
                raise StudyError(said) from error
            raise


class _Reader:
    """What `sqlite3.Connection` is to those who read by SQL."""

    def __init__(self, made):
        self.made = made

    def execute(self, query: str, values: Iterable = ()) -> Any:
        """Execute a query that has a question mark for each value."""
        return self.made.execute(query.replace("?", "%s"), list(values))


def _place(uri: str) -> Path:
    """Where a run's files are; no absolute path if a server has them."""
    return path_of(uri) if uri.startswith(("file:", "/")) else Path(uri)

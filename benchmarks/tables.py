"""Write studies/store/mlflow.sql anew, as the installed MLflow makes its tables; for when its version has changed.

python -m benchmarks.tables
"""

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from studies.contract import uri
from studies.store import database

MAKE = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(sys.argv[1], sys.argv[2])
"""


def made_by_mlflow(folder: Path) -> str:
    """What a fresh database of MLflow's in an empty folder is made by, but for its first experiment."""
    words = [uri(folder), (folder / "artifacts").as_uri()]
    subprocess.run([sys.executable, "-c", MAKE, *words], check=True, capture_output=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return dumped(connection)


def dumped(connection: sqlite3.Connection) -> str:
    """All tables and rows as SQL, but for experiments' rows, which name a place and a time."""
    lines = (line for line in connection.iterdump() if not line.startswith('INSERT INTO "experiments"'))
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        database.TABLES.write_text(made_by_mlflow(Path(folder)))

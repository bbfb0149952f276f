"""MLflow's pages of a store, on this machine alone: `python -m analysis.ui`, until Ctrl-C."""

import errno
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

from analysis import command, load
from analysis.read import runs
from studies import address, contract, terminal
from studies.record import StudyError

HOST = "127.0.0.1"
PORT = 5000
"""Where MLflow's pages are by custom."""

LIGHT = {"PYTHONWARNINGS": "", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""With one worker besides, MLflow's server is 2 processes of 0.5 GB together; left to itself 10 of 1.8 GB."""

TRAINING = "workflowType=machine_learning"
"""Without it MLflow's pages are those for language models: an experiment opens at its traces, and there are none."""

COLUMNS = "viewStateShareKey=study"
"""The list of runs with the columns that `studies.store` chose: the study's metric, its factors, seed and status."""

FILTERS = (
    "tags.trial.status = 'diverged'",
    "tags.trial.role = 'scientific' and metrics.val_accuracy > 0.9",
)


def main(arguments: list[str] | None = None) -> int:
    """Serve MLflow's pages until they are interrupted; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("ui", "Browse a store's studies in MLflow.", root="a folder, or a database's address")
    parser.add_argument("--port", type=int, help=f"(default: {PORT}, or another where that is taken)")
    options = parser.parse_args(arguments)

    def run():
        with suppress(KeyboardInterrupt):
            serve(options.root, options.port)

    return command.ended(run)


def serve(root: str | Path, port: int | None = None) -> NoReturn:
    """Serve MLflow's pages of a store, and print where they are and what to look at, until it is interrupted.

    Args:
        port: None takes 5000 if it is free, else another.

    Raises:
        StudyError: there is no store, the port cannot be had, or the server ends by itself.
    """
    if runs.is_server(root):
        raise StudyError(f"--root {root} is a server already: open that address in a browser")
    shown, surroundings = _backend(root)
    looked = looks(root)  # first, since it finds what is wrong with the store
    port, claim = free_port(port)
    words = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", HOST, "--port", str(port)]
    with claim, tempfile.TemporaryFile("w+") as log:
        # In a session of its own, so that Ctrl-C reaches it through here, once, with all its processes.
        server = subprocess.Popen(
            words, env=os.environ | LIGHT | surroundings, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while server.poll() is None and not _answers(port):
                time.sleep(0.1)
            if server.poll() is None:
                command.say(guide(f"http://{HOST}:{port}", shown, looked))
                server.wait()
        finally:
            _end(server)
        log.seek(0)
        last = " ".join(" ".join(log.read().split("\n")[-4:]).split())
        raise StudyError(
            f"MLflow's server ended by itself (exit code {server.returncode}): {last or 'it said nothing'}"
        )


def _backend(root: str | Path) -> tuple[str | Path, dict[str, str]]:
    """What is shown, and the variables by which MLflow's server finds it: whoever lists processes sees its words.

    Raises:
        StudyError: there is no store.
    """
    place = address.place(root)
    if isinstance(place, address.Address):
        return place, {"MLFLOW_BACKEND_STORE_URI": place.uri.replace("postgresql://", "postgresql+psycopg://", 1)}
    database = place.resolve() / "mlflow.db"
    if not database.exists():
        raise StudyError(
            f"--root {root}: there is no store in {database.parent} yet: run a study first "
            f"({terminal.spoken('studies.run', '+study=init_comparison')}), or name "
            f"another store with --root"
        )
    return database.parent, {"MLFLOW_BACKEND_STORE_URI": contract.uri(database.parent)}


def looks(root: str | Path) -> list[load.Execution]:
    """The latest execution of each study in a store; what else MLflow keeps there has none."""
    found = []
    for study in load.studies(root):
        try:
            found.append(load.execution(study, root))
        except StudyError:
            continue
    return found


def guide(server: str, root: str | Path, executions: list[load.Execution]) -> str:
    """What there is to see at a server's address, and how."""
    lines = [f"MLflow shows {root} at {server}/#/experiments?{TRAINING}", ""]
    for execution in executions:
        experiment = f"{server}/#/experiments/{execution.experiment_id}/runs"
        # Executions that left no view did not name their source either; MLflow gets lost where there is none.
        view = f"{COLUMNS}&" if "mlflow.source.name" in execution.tags else ""
        run = f"{experiment}/{execution.run_id}"
        lines += [
            f"{execution.study.name}: {execution.study.question}",
            f"  all runs          {experiment}?{view}{TRAINING}",
            f"  latest execution  {run}?{TRAINING}",
            f"  its report        {run}/artifactPath/report.html?{TRAINING}",
            "",
        ]
    lines += [
        "Among all runs, + unfolds an execution into its trials; those that are checked can be compared. A trial has",
        "charts for each layer under Model metrics. Worth typing in the search box above the runs:",
        *(f"  {query}" for query in FILTERS),
        "",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)


def free_port(wanted: int | None = None) -> tuple[int, IO]:
    """A port of this machine that is free: the one that is wanted; else 5000, or if that is taken another.

    Returns:
        the port; and a file that keeps it from others who ask here, until it is closed.

    Raises:
        StudyError: the one that is wanted cannot be had.
    """
    for port in [wanted] if wanted is not None else [PORT, 0]:
        try:
            with socket.create_server((HOST, port)) as free:
                port = free.getsockname()[1]
                return port, _claimed(port)
        except (OSError, OverflowError) as error:
            reason = error
    raise StudyError(
        f"--port {wanted}: cannot be had ({getattr(reason, 'strerror', None) or reason}): name another from 1024 to "
        f"65535, or none, for one that is free"
    )


def _claimed(port: int) -> IO:
    """A lock on a port, held from before a server is started until it has ended: it takes seconds to take its port.

    Raises:
        OSError: another process has it.
    """
    file = open(Path(tempfile.gettempdir()) / f"weight-studies-{os.getuid()}-{port}.lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
    return file


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(server: subprocess.Popen) -> None:
    """End a server and all its processes, however impatient the user is."""
    terminal.settle()
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, how)
            server.wait(5)
        except (ProcessLookupError, PermissionError):  # none is left; macOS has the second word for it
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())

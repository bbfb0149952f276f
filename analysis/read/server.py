"""A store behind an MLflow tracking server, read through it."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.read.runs import HasFiles, Run, by_client, client, path_of
from studies import address, contract, waiting
from studies.address import Address
from studies.contract import Tag
from studies.record import StudyError

PAGE = 1000
"""Experiments a request."""

EXECUTIONS = f"tags.`{Tag.ROLE}` = 'execution'"


class _Kept:
    """What was read within `kept`."""

    servers: dict[str, "Server"] | None = None


@contextmanager
def kept() -> Iterator[None]:
    """Have what is read of a server's trials in here be read once, and be there for the next question; but for files.

    A server takes seconds for a thousand trials, and a command asks for them a dozen times. `forget` has them read
    again; executions are always asked for.
    """
    if _Kept.servers is not None:
        yield
        return
    _Kept.servers = {}
    try:
        yield
    finally:
        _Kept.servers = None


def forget() -> None:
    """Have the trials be read again, since there are others now."""
    for server in (_Kept.servers or {}).values():
        server.trials.clear()


class Server:
    """A store behind an MLflow tracking server, with the credentials that MLflow's own client would use.

    Attributes:
        trials: within `kept`, those that have been read, with all their metrics, by their study.

    Raises:
        StudyError: there is none at the address, or it refuses.
    """

    def __init__(self, place: Address):
        self.address = place
        named = address.mlflows(place)
        self.client = client(named)
        self.trials: dict[str, list[Run]] = {}
        from mlflow.utils.credentials import get_default_host_creds

        self.credentials = get_default_host_creds(named)
        answer = self._get("/api/2.0/mlflow/experiments/search", {"max_results": 1}, timeout=10)
        if answer.status_code in (401, 403):
            raise StudyError(
                f"{self.address} refuses ({answer.status_code} {answer.reason}): set MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; or start the server with --allowed-hosts and "
                f"the name it is called by"
            )
        if not (answer.ok and answer.headers.get("Content-Type", "").startswith("application/json")):
            raise StudyError(
                f"{self.address} is no MLflow tracking server (it answers {answer.status_code} {answer.reason}): "
                f"expected the address that shows MLflow in a browser, such as http://127.0.0.1:5000"
            )

    @classmethod
    def at(cls, place: Address) -> "Server":
        """The server at an address, asked once within `kept` whether it is one."""
        if _Kept.servers is None:
            return cls(place)
        if place not in _Kept.servers:
            _Kept.servers[place] = cls(place)
        return _Kept.servers[place]

    def __str__(self):
        return self.address

    def studies(self) -> list[str]:
        """The names of its studies."""
        found, token = [], None
        while token != "":
            page = self._asked(self.client.search_experiments, max_results=PAGE, page_token=token)
            found += [e.tags.get(contract.STUDY, e.name) for e in page if e.name != "Default"]
            token = page.token or ""
        return sorted(set(found))

    def runs(self, study: str, metrics: Iterable[str] = (), params: bool = False, role: str = "") -> list[Run]:
        """The runs of a study, with the last values of these metrics, and with their params."""
        query = f"tags.`{Tag.ROLE}` = '{role}'" if role else ""
        if role or _Kept.servers is None:
            return self._asked(by_client, self.client, study, metrics, path_of, query)
        if study not in self.trials:
            every = self._asked(by_client, self.client, study, None, path_of)
            self.trials[study] = [run for run in every if run.tags.get(Tag.ROLE) != "execution"]
        wanted = frozenset(metrics)
        trials = [
            replace(run, metrics={name: value for name, value in run.metrics.items() if name in wanted})
            for run in self.trials[study]
        ]
        return self._asked(by_client, self.client, study, wanted, path_of, EXECUTIONS) + trials

    def content(self, run: HasFiles, name: str) -> bytes:
        """One of a run's files.

        Raises:
            StudyError: the server cannot give it.
        """
        answer = self._get("/get-artifact", {"path": name, "run_uuid": run.run_id})
        if not answer.ok:
            raise StudyError(
                f"{self.address} cannot give {name} of run {run.run_id} ({answer.status_code} {answer.reason}): on the "
                f"server's machine it should be in {run.folder}. If the store was moved there, run a study in it: that "
                f"puts the places of its files right"
            )
        return answer.content

    def has(self, run: HasFiles, name: str) -> bool:
        """Whether a file is among a run's."""
        return any(file.path == name for file in self._asked(self.client.list_artifacts, run.run_id))

    def path(self, run: HasFiles, name: str) -> Path:
        """One of a run's files, fetched into a folder for temporary files."""
        folder = Path(tempfile.gettempdir(), f"weight-studies-{run.run_id}")
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).write_bytes(self.content(run, name))
        return folder / name

    def _get(self, endpoint, params, **settings):
        from mlflow.utils.rest_utils import http_request

        def get():
            answer = http_request(self.credentials, endpoint, "GET", params=params, raise_on_status=False, **settings)
            return waiting.checked(answer) if waiting.is_patient() else answer

        return self._asked(get)

    def _asked(self, ask: Callable, *arguments, **settings) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return waiting.asked(self.address, lambda: ask(*arguments, **settings))
        except MlflowException as error:
            raise StudyError(
                f"{self.address} does not answer ({waiting.reason(error)}): start it with mlflow server, or see that "
                f"this is its address, such as http://127.0.0.1:5000"
            ) from error

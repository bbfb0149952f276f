"""What `sql` does, through MLflow's client: for servers, and for database versions whose tables are not known.

A run is written in several requests, any of which may be answered too late or never: each can be made again with the
same outcome, and the run is none of ours, to whoever reads, until its tags have come, and no trial that has ended until
its status has, which is last.
"""

import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from studies import address as addresses
from studies import contract, waiting
from studies.address import Address
from studies.contract import Tag
from studies.record import StudyError
from studies.store import database, lease, postgres

T = TypeVar("T")

BEGUN = "being written "
"""How the names begin of runs that are not whole yet; what follows is the driver's own."""

MOST_TAGS, MOST_METRICS = 100, 1000
"""Of one request."""


class ClientStore:
    """What `sql.Store` does; its arguments too, and a server's address besides."""

    def __init__(self, place: Path | Address, study: str):
        held = lease.HELD.get((str.__str__(place), study)) if isinstance(place, Address) else None
        self._open(_client(place), place, "", held)
        if isinstance(place, Path):
            self.experiment, self.location = self._in_folder(place, study)
        else:
            self.experiment, self.location = self._asked(lambda: _experiment(self.client, place, study))
        if self._asked(lambda: self.client.get_experiment(self.experiment)).lifecycle_stage == "deleted":
            self._asked(lambda: self.client.restore_experiment(self.experiment))
            for run in self._runs():  # they were deleted with it, and it alone is wanted again
                self._asked(partial(self.client.delete_run, run.info.run_id))

    def _open(self, client, place: object, experiment: str = "", hold: lease.Lease | None = None) -> None:
        self.client, self.place, self.experiment, self.lease = client, place, experiment, hold
        self._begun: dict[str, dict[str, str]] = {}

    def _in_folder(self, root, study) -> tuple[str, str]:
        with FileLock(root / ".mlflow.lock"):  # jobs of one sweep make it once
            with database.transaction(root) as connection:
                known, location = database.found(connection, root, study)
            tags = {contract.STUDY: study, contract.ROOT: root.as_uri()}
            return self.client.create_experiment(study, location, tags) if known is None else str(known), location

    def _asked(self, ask: Callable[[], T]) -> T:
        return waiting.asked(self.place, ask)

    def _written(self, ask: Callable[[], T]) -> T:
        """What is asked for as long as the study is this driver's."""

        def mine():
            if self.lease:
                self.lease.check()
            return ask()

        return waiting.asked(self.place, mine)

    def _runs(self, query: str = "") -> list:
        """The experiment's runs, however many."""
        runs, token = [], None
        while token != "":
            page = self._asked(partial(self.client.search_runs, [self.experiment], query, page_token=token))
            runs += page
            token = page.token or ""
        return runs

    def describe(self, tags: dict[str, str]) -> None:
        """Give the experiment tags, its description among them."""
        for key, value in tags.items():
            self._written(partial(self.client.set_experiment_tag, self.experiment, key, value))

    def begin(self, name: str, tags: dict[str, str], start: int) -> str:
        """A new run's id; its tags come with its `write`, and it is RUNNING until that says otherwise."""
        own = f"{BEGUN}{uuid.uuid4().hex}"
        bare = {key: tags[key] for key in ("mlflow.parentRunId", "sweep") if key in tags}
        tried = False

        def made():
            nonlocal tried
            if tried:  # it may be there, and the answer was lost
                for run in self.client.search_runs([self.experiment], f"attributes.run_name = '{own}'"):
                    return run.info.run_id
            tried = True
            return self.client.create_run(self.experiment, start_time=start, run_name=own, tags=bare).info.run_id

        run = self._written(made)
        self._begun[run] = tags | {"mlflow.runName": name}
        return run

    def write(
        self, run: str, status: str, end: int | None, params: dict[str, str], metrics: list, dataset: dict | None = None
    ) -> None:
        """Write a run's params, metrics, dataset and tags, and end it last unless it is RUNNING."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        pairs = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(pairs), MOST_TAGS):
            some = pairs[start : start + MOST_TAGS]
            self._written(partial(self.client.log_batch, run, params=some))
        self._add_metrics(run, metrics)
        if dataset:
            tags = [InputTag("mlflow.data.context", "training")]
            self._written(lambda: self.client.log_inputs(run, [DatasetInput(Dataset(**dataset), tags)]))
        self.tag(run, self._begun.pop(run, {}))
        if status != "RUNNING":
            self._written(lambda: self.client.set_terminated(run, status, end_time=end))

    def end(self, run: str, status: str, tags: dict[str, str], metrics: Iterable[tuple] = ()) -> None:
        """End a run that was written as RUNNING, tag it, and give it metrics, `(name, value, step)`."""
        self.tag(run, tags)
        self._add_metrics(run, metrics)
        self._written(lambda: self.client.set_terminated(run, status))

    def tag(self, run: str, tags: dict[str, str]) -> None:
        """Give a run tags."""
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in contract.parted(tags).items()]
        for start in range(0, len(entries), MOST_TAGS):
            some = entries[start : start + MOST_TAGS]
            self._written(partial(self.client.log_batch, run, tags=some))

    def _add_metrics(self, run, metrics) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)  # once, so that MLflow knows what it is given again
        entries = [Metric(name, value, now, step) for name, value, step in metrics]
        for start in range(0, len(entries), MOST_METRICS):
            some = entries[start : start + MOST_METRICS]
            self._written(partial(self.client.log_batch, run, metrics=some))

    def upload(self, run: str, folder: Path) -> None:
        """Keep the files of a folder with a run, each in a request of its own."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            below = file.parent.relative_to(folder).as_posix()
            place = None if below == "." else below
            self._written(partial(self.client.log_artifact, run, str(file), place))

    def upload_files(self, run: str, files: Mapping[str, bytes]) -> None:
        """Keep files, name -> content, with a run."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self.upload(run, Path(folder))

    def end_leftovers(self, sweep: str) -> None:
        """Runs that a killed driver left RUNNING: executions were killed, trials were not written whole and go.

        What a user has begun in the experiment is none of ours.
        """
        for run in self._runs("attributes.status = 'RUNNING'"):
            if sweep and run.data.tags.get("sweep") == sweep:
                continue  # it may live
            of, name = run.info.run_id, run.data.tags.get(Tag.ROLE)
            if name in ("execution", "sweep"):
                self._written(partial(self.client.set_terminated, of, "KILLED"))
            elif name or (run.info.run_name or "").startswith(BEGUN):
                self._written(partial(self.client.delete_run, of))

    def sweep_run(self, sweep: str) -> str | None:
        """The run that the executions of a sweep are nested in, if there is one yet."""
        query = f"tags.sweep = '{sweep}' AND tags.`trial.role` = 'sweep'"
        found = self._runs(query)
        return found[0].info.run_id if found else None

    def execution(self, fits: bool) -> str | None:
        """The last execution there is of one's own fits, or of a study that was declared."""
        found = self._runs(f"tags.`{Tag.ROLE}` = 'execution'")
        return next((run.info.run_id for run in found if (Tag.FITS in run.data.tags) == fits), None)

    def latest(self) -> int:
        """When the last of the study's runs began, or was asked for, by the clocks of then: milliseconds since 1970."""
        newest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
        last = waiting.asked(self.place, lambda: list(self.client.search_runs([self.experiment], "", **newest)))
        runs = [*last, *self._runs(f"tags.`{Tag.ROLE}` = 'execution'")]
        tags = [run.data.tags.get(name, "") for run in runs for name in (Tag.ASKED, Tag.JOINED)]
        return max([0, *(run.info.start_time for run in runs), *map(contract.moment, tags)])


def _client(place: Path | Address):
    from mlflow.tracking import MlflowClient

    if isinstance(place, Path):
        return MlflowClient(contract.uri(place))
    return MlflowClient(addresses.mlflows(place) if place.is_server else postgres.mlflows(place))


def _experiment(client, address: Address, study: str) -> tuple[str, str]:
    """The experiment that holds a study, whatever it is called now, made if there is none; and where its files are.

    Raises:
        StudyError: an experiment of that name holds something else, or files that cannot be written from here.
    """
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    tagged = client.search_experiments(ViewType.ALL, filter_string=f"tags.`{contract.STUDY}` = '{study}'")
    found = tagged[0] if tagged else client.get_experiment_by_name(study)
    if found is None:
        place = None if address.is_server else database.files_of(address, study)
        try:
            client.create_experiment(study, place, {contract.STUDY: study})
        except MlflowException as error:  # jobs of one sweep make it once
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(study)
    if found.tags.get(contract.STUDY, "") != study:
        raise database.taken(address, study)
    if address.is_server:
        _refuse_elsewhere(address, study, found.artifact_location)
    return found.experiment_id, found.artifact_location


def _refuse_elsewhere(address, study, location: str) -> None:
    """See that files go through the server, or to where this machine reaches them too."""
    if location.startswith(("file:", "/")):
        raise StudyError(
            f"{address}: the files of {study} are kept in a folder, {location}, not by the server: the study was begun "
            f"in the database itself, where tracking.uri=postgresql://USER@HOST/DATABASE goes on with it, or the "
            f"server was started without --artifacts-destination. Or give the study another name with study.name=NAME"
        )


@contextmanager
def claimed(address: Address, study: str, sweep: str, tell: Callable[[str], object]) -> Iterator[None]:
    """Keep other drivers from a study behind a server.

    Raises:
        StudyError: another driver has it.
    """
    store = ClientStore(address, study)
    client, experiment = store.client, store.experiment

    def read() -> str | None:
        return client.get_experiment(experiment).tags.get(lease.TAG) or None

    def write(text: str | None) -> None:
        client.set_experiment_tag(experiment, lease.TAG, text or "")

    mine, key = lease.Lease(study, address, read, write), (str.__str__(address), study)
    with mine.held(sweep, tell):
        lease.HELD[key] = mine
        try:
            yield
        finally:
            del lease.HELD[key]

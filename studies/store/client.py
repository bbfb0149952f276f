"""What `sql` does, through MLflow's client: for database versions whose tables are not known."""

import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from studies import contract
from studies.contract import Tag
from studies.store import database


class ClientStore:
    """What `sql.Store` does; its arguments too."""

    def __init__(self, file: Path, study: str):
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(contract.uri(file.parent))
        with FileLock(file.with_name(".mlflow.lock")):  # jobs of one sweep make it once
            with database.transaction(file) as connection:
                known, self.location = database.found(connection, file.parent, study)
            tags = {contract.STUDY: study, contract.ROOT: file.parent.as_uri()}
            self.experiment = self.client.create_experiment(study, self.location, tags) if known is None else str(known)
        if self.client.get_experiment(self.experiment).lifecycle_stage == "deleted":
            self.client.restore_experiment(self.experiment)
            for run in self._runs():  # they were deleted with it, and it alone is wanted again
                self.client.delete_run(run.info.run_id)

    def _runs(self, query: str = "") -> list:
        """The experiment's runs, however many."""
        runs, token = [], None
        while token != "":
            page = self.client.search_runs([self.experiment], query, page_token=token)
            runs += page
            token = page.token or ""
        return runs

    def describe(self, tags: dict[str, str]) -> None:
        """Give the experiment tags, its description among them."""
        for key, value in tags.items():
            self.client.set_experiment_tag(self.experiment, key, value)

    def begin(self, name: str, tags: dict[str, str], start: int) -> str:
        """A new run's id; it is RUNNING until its `write` says otherwise."""
        return self.client.create_run(self.experiment, start_time=start, run_name=name, tags=tags).info.run_id

    def write(
        self, run: str, status: str, end: int | None, params: dict[str, str], metrics: list, dataset: dict | None = None
    ) -> None:
        """Write a run's params, metrics and dataset, and end it last unless it is RUNNING."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        pairs = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(pairs), 100):
            self.client.log_batch(run, params=pairs[start : start + 100])
        self._add_metrics(run, metrics)
        if dataset:
            tags = [InputTag("mlflow.data.context", "training")]
            self.client.log_inputs(run, [DatasetInput(Dataset(**dataset), tags)])
        if status != "RUNNING":
            self.client.set_terminated(run, status, end_time=end)

    def end(self, run: str, status: str, tags: dict[str, str], metrics: Iterable[tuple] = ()) -> None:
        """End a run that was written as RUNNING, tag it, and give it metrics, `(name, value, step)`."""
        self.tag(run, tags)
        self._add_metrics(run, metrics)
        self.client.set_terminated(run, status)

    def tag(self, run: str, tags: dict[str, str]) -> None:
        """Give a run tags."""
        for key, value in tags.items():
            self.client.set_tag(run, key, value)

    def _add_metrics(self, run, metrics) -> None:
        from mlflow.entities import Metric

        entries = [Metric(name, value, _now(), step) for name, value, step in metrics]
        for start in range(0, len(entries), 1000):
            self.client.log_batch(run, metrics=entries[start : start + 1000])

    def end_leftovers(self, sweep: str) -> None:
        """Runs that a killed driver left RUNNING: executions were killed, trials were not written whole and go."""
        for run in self._runs("attributes.status = 'RUNNING'"):
            if sweep and run.data.tags.get("sweep") == sweep:
                continue  # it may live
            if run.data.tags.get(Tag.ROLE) in ("execution", "sweep"):
                self.client.set_terminated(run.info.run_id, "KILLED")
            else:
                self.client.delete_run(run.info.run_id)

    def sweep_run(self, sweep: str) -> str | None:
        """The run that the executions of a sweep are nested in, if there is one yet."""
        query = f"tags.sweep = '{sweep}' AND tags.`trial.role` = 'sweep'"
        found = self.client.search_runs([self.experiment], query)
        return found[0].info.run_id if found else None

    def execution(self, fits: bool) -> str | None:
        """The last execution there is of one's own fits, or of a study that was declared."""
        found = self._runs(f"tags.`{Tag.ROLE}` = 'execution'")
        return next((run.info.run_id for run in found if (Tag.FITS in run.data.tags) == fits), None)


def _now() -> int:
    return int(time.time() * 1000)

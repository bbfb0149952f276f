"""The files of runs: in the folder of a study, or taken there by a tracking server."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from studies.address import Address
from studies.contract import run_page
from studies.store.client import ClientStore
from studies.store.sql import Store

NOTE = ".begun-"
"""Begins of the names of files beside the runs' folders: each names a run whose files are being written."""

RUN = re.compile(r"[0-9a-f]{32}")
"""What runs are called; what a note names otherwise, such as the folder above, is not deleted."""


def folder_of(store: Store | ClientStore) -> Path | None:
    """The folder of an experiment's files; None if a server has them."""
    if isinstance(store.place, Address) and store.place.is_server:
        return None
    return Path(unquote(urlsplit(store.location).path))


def artifacts(folder: Path, run: str) -> Path:
    """The folder of a run's files, in that of its experiment; made if it is not there."""
    path = folder / run / "artifacts"
    path.mkdir(parents=True, exist_ok=True)
    return path


def keep(store: Store | ClientStore, run: str, files: Mapping[str, str | bytes]) -> None:
    """Keep files, name -> content, with a run; each is whole, whoever reads meanwhile."""
    contents = {n: content.encode() if isinstance(content, str) else content for n, content in files.items()}
    if (folder := folder_of(store)) is None:
        assert isinstance(store, ClientStore)  # noqa: S101
        store.upload_files(run, contents)
        return
    for name, content in contents.items():
        new = artifacts(folder, run) / f".{name}.new"
        new.write_bytes(content)
        new.replace(new.with_name(name))


@contextmanager
def begun(store: Store | ClientStore, run: str) -> Iterator[None]:
    """Have it be known, should the driver be killed or the disk be full, that files are here of a run that is not."""
    folder = None if isinstance(store, ClientStore) else folder_of(store)  # through MLflow runs come first
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{NOTE}{run}"
    note.touch()
    yield
    note.unlink()


def delete_halves(store: Store | ClientStore) -> None:
    """Delete the files of runs that were begun and are not there. No other driver may be writing this study."""
    if isinstance(store, ClientStore) or not (folder := folder_of(store)) or not folder.is_dir():
        return
    if notes := list(folder.glob(f"{NOTE}*")):
        known = store.runs()
        for note in notes:
            run = note.name.removeprefix(NOTE)
            if RUN.fullmatch(run) and run not in known:
                shutil.rmtree(folder / run, ignore_errors=True)
            note.unlink()


def take(store: Store | ClientStore, run: str, file: Path, name: str) -> None:
    """Have a run keep a file, which then is nowhere else."""
    if (folder := folder_of(store)) is not None:
        shutil.move(file, artifacts(folder, run) / name)
        return
    assert isinstance(store, ClientStore)  # noqa: S101
    with tempfile.TemporaryDirectory() as near:
        shutil.move(file, Path(near) / name)
        store.upload(run, Path(near))


def filled(store: Store | ClientStore, run: str, fill: Callable[[Path], Any]) -> Any:
    """What `fill` gives, which puts files into a folder that the run keeps them in.

    A path that it gives of a file that a server keeps is the address of its page.
    """
    if (folder := folder_of(store)) is not None:
        return fill(artifacts(folder, run))
    assert isinstance(store, ClientStore)  # noqa: S101
    with tempfile.TemporaryDirectory() as near:
        given = fill(Path(near))
        store.upload(run, Path(near))
        several = given if isinstance(given, list) else [given]
        pages = [run_page(store.place, store.experiment, run, str(path.relative_to(near))) for path in several]
        return pages if isinstance(given, list) else pages[0]

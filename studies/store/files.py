"""The files of runs: in the folder of a study, or taken there by a tracking server."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from studies.address import Address
from studies.contract import run_page
from studies.store.client import ClientStore
from studies.store.sql import Store


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

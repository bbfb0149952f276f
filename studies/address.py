"""Where a store is: in a folder, behind an MLflow tracking server, or in a PostgreSQL database."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from studies import contract
from studies.masking import masked
from studies.record import StudyError

SERVERS = ("http", "https")
DATABASES = ("postgresql", "postgres", "postgresql+psycopg")
USUAL = "mlruns"
"""The folder that a store is in unless another place is named."""

CONNECTION = {
    "application_name": "weight-studies",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "client_encoding": "utf8",
    "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
    "-c tcp_user_timeout=30000",
}
"""How databases are connected to, unless an address says otherwise: who is gone is noticed within half a minute, by the
database too, which else has what a machine held that was switched off for two hours more."""

WAITING = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's client waits for a server that is away by itself, for minutes and in silence: `studies.waiting` does it. And
it prints two lines for each run that ends."""

_KNOWN: dict[str, str] = {}
"""The addresses that this process was given with a password, by how they are written without it."""


class Address(str):
    """The address of a store that is no folder; as text, wherever it goes, it has no password.

    Attributes:
        uri: the same, with its password.
        files: a folder of this machine: a database's files are kept there, of a study that begins there, and what a
            driver needs meanwhile; None if it is only read.
    """

    uri: str
    files: Path | None

    def __new__(cls, uri: str, files: Path | None = None):
        """An address of what it is with its password."""
        made = super().__new__(cls, masked(uri))
        made.uri = _KNOWN.setdefault(made, uri) if made == uri else uri
        if made != uri:
            _KNOWN[str(made)] = uri
        made.files = files
        return made

    def __str__(self) -> "Address":
        return self  # so that what has been through `str` is still one

    @property
    def is_server(self) -> bool:
        """Whether it is that of a tracking server; else it is a database's."""
        return self.startswith(tuple(f"{scheme}://" for scheme in SERVERS))


def is_address(root: str | Path) -> bool:
    """Whether a root is meant for the address of a server or a database, rather than for a folder."""
    return isinstance(root, Address) or str(root).partition("://")[0].lower() in (*SERVERS, *DATABASES)


def is_server(root: str | Path) -> bool:
    """Whether a root is the address of a tracking server."""
    return str(root).partition("://")[0].lower() in SERVERS


def place(root: str | Path, files: Path | None = None) -> Path | Address:
    """Where a root is: a folder, or an address.

    Args:
        files: see `Address`.

    Raises:
        StudyError: it cannot be an address, and is no folder's.
    """
    if isinstance(root, Address):
        return root if files is None else Address(root.uri, files)
    if not is_address(root):
        if re.fullmatch(r"[\w.-]+:\d+/?", str(root)) and not Path(root).exists():
            raise StudyError(
                f"{root} is no folder, but a host and a port: a server is named with http://{str(root).rstrip('/')}, "
                f"and a folder of that name with ./{root}"
            )
        return contract.folder(root)
    scheme, _, rest = str(root).strip().partition("://")
    kind = scheme.lower() if scheme.lower() in SERVERS else "postgresql"
    try:
        parts = urlsplit(f"{kind}://{rest}")
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    plain = (
        re.fullmatch(r"([^\s%]|%(?!00)[0-9A-Fa-f]{2})+", rest)
        and "@" not in parts.path
        and not (parts.fragment or "\\" in rest)
    )
    if kind in SERVERS:
        if plain and parts.hostname and not parts.query:
            return Address(f"{kind}://{rest}".rstrip("/"), files)
        raise StudyError(f"{_told(root, parts)} is no address: expected one such as http://127.0.0.1:5000")
    if plain and parts.path.count("/") == 1 and len(parts.path) > 1:
        return Address(f"postgresql://{rest}", files)
    raise StudyError(
        f"{_told(root, parts)} is no address of a database: expected postgresql://USER@HOST/DATABASE, its signs other "
        f"than letters and digits as %40 is one, and the password in ~/.pgpass or PGPASSWORD"
    )


def _told(root, parts) -> str:
    """What was given, unless it is such that a password in it might be told."""
    whole = str(root)
    return whole if "@" not in whole or not parts.scheme else f"{whole.partition('://')[0]}://…"


def folder(root: str | Path) -> Path:
    """The folder of this machine that a driver has for a store: that of the store, or what its address has for it."""
    if not isinstance(root, Address):
        return Path(root)
    assert root.files is not None  # noqa: S101
    return root.files


def named(root: str) -> str | Path:
    """What a command was given, where it is an address without its password in what is printed; else as it is."""
    try:
        found = place(root)
    except StudyError:  # which is raised where it is opened
        return root
    return found if isinstance(found, Address) else root


def tracked(tracking: dict) -> Path | Address:
    """The store that a config's `tracking` names.

    Raises:
        StudyError: there can be none.
    """
    uri = tracking.get("uri")
    try:
        folder = contract.folder(tracking["root"])
    except StudyError as error:
        raise StudyError(f"tracking.root={error}") from None
    if uri is None:
        return folder
    try:
        found = place(uri, Path(os.path.abspath(folder)))
    except StudyError as error:
        raise StudyError(f"tracking.uri={error}") from None
    return found


def without_password(tracking: dict) -> dict:
    """A config's `tracking` as it may go anywhere: the password in its address stays with this process."""
    named_so = tracking.get("uri")
    return tracking | {"uri": str.__str__(named(named_so))} if isinstance(named_so, str) else tracking


def is_usual(root: str | Path) -> bool:
    """Whether a root is the folder that needs no word."""
    return not is_address(root) and Path(root) == Path(USUAL)


def where(root: str | Path) -> list[str]:
    """The words that have our other commands read the same store."""
    return [] if is_usual(root) else ["--root", str(root)]


def setting(root: str | Path) -> list[str]:
    """The words that have `studies.run` write the same store."""
    return [] if is_usual(root) else [f"tracking.{'uri' if is_address(root) else 'root'}={root}"]


def remember(words: list[str]) -> None:
    """Know the passwords of the addresses that a command was given, for what has them without."""
    for word in words:
        value = word.partition("=")[2].strip("'\"")
        if is_address(value):
            named(value)


def mlflows(address: Address) -> str:
    """A server's address as MLflow's client has it, which is then told by its variables who we are, and not to wait."""
    parts = urlsplit(address.uri)
    for name, value in (("USERNAME", parts.username), ("PASSWORD", parts.password)):
        if value:
            os.environ[f"MLFLOW_TRACKING_{name}"] = unquote(value)
    for name, usual in WAITING.items():
        os.environ.setdefault(name, usual)
    return str.__str__(address)


def connection(address: Address) -> dict:
    """What `psycopg.connect` is given besides the address: `CONNECTION`, but for what the address has itself.

    Raises:
        StudyError: it has what psycopg, which is there, does not know.
    """
    psycopg = sys.modules["psycopg"]
    try:
        psycopg.conninfo.conninfo_to_dict(address.uri)
    except psycopg.ProgrammingError as error:
        reason = masked(str(error).strip())
        raise StudyError(
            f"{address} is no address of a database ({reason}): expected postgresql://USER@HOST/DATABASE, with "
            f"settings of libpq's after a question mark"
        ) from None  # whose text may have all of it
    given = {pair.partition("=")[0] for pair in urlsplit(address.uri).query.split("&")}
    return {name: value for name, value in CONNECTION.items() if name not in given}

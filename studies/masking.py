"""Words without the passwords of the addresses in them: what is printed, tagged, kept or raised goes through here."""

import re

_PASSWORD = re.compile(r"([A-Za-z][\w+.-]*://[^\s/?#@:]*):(?!\d+(?:[/?#\s'\"]|$))\S*@")
"""Up to the last `@`, since passwords may have one that should have been written `%40`; no port."""

_USER = re.compile(r"(https?://)[^\s/?#@'\"]+@")
"""Of a server, which may be a token."""

_SETTING = re.compile(r"((?:[?&\s]|^)(?:ssl)?password=)[^&\s'\"]+", re.IGNORECASE)
"""Among an address's settings, or as libpq writes it."""


def masked(text: str) -> str:
    """A text whose addresses have no passwords any more; who reads one again names it elsewhere, as in `~/.pgpass`.

    >>> masked("tracking.uri=postgresql://me:se@cret@there/mlflow"), masked("http://there:5000/@")
    ('tracking.uri=postgresql://me@there/mlflow', 'http://there:5000/@')
    >>> masked("postgresql://there/mlflow?user=me&password=secret")
    'postgresql://there/mlflow?user=me&password=***'
    >>> masked("https://me:secret@there, https://token@there/a")
    'https://there, https://there/a'
    """
    return _SETTING.sub(r"\1***", _USER.sub(r"\1", _PASSWORD.sub(r"\1@", text)))

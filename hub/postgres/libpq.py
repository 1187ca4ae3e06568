"""The way to Postgres for programs of libpq, such as psql: what is secret goes by the environment.

Arguments are seen by all who can run `ps`; the environment by the user and root.
"""

from __future__ import annotations

from urllib.parse import parse_qs, unquote

from hub.errors import SetupError
from hub.postgres.connect import Target, split

_SECRETS = ("password", "sslpassword")


def arguments(target: Target) -> tuple[str, dict[str, str]]:
    """The URL to call a program with, and what its environment needs beside it. Raises SetupError.

    A passphrase of a key is left out, as no variable carries it: the program asks for it.
    """
    parts = split(target.dsn)
    given = parse_qs(parts.query)
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    password = given["password"][-1] if "password" in given and not password else unquote(password)
    if "\0" in password:
        raise SetupError("The password in the database URL has a NUL, which no password has. Correct the database URL.")
    if any(port.strip("0123456789") for port in map(_port, hosts.split(","))):
        # What follows is not shown: here it is a password, where the @ behind it is missing.
        raise SetupError(
            "The port in the database URL is no number. One looks like postgresql://user:password@host:5432/database."
        )
    kept = "&".join(each for each in parts.query.split("&") if unquote(each.partition("=")[0]) not in _SECRETS)
    url = f"{parts.scheme}://{user}{at}{hosts}{parts.path}" + (f"?{kept}" if kept else "")
    return url, ({"PGPASSWORD": password} if password else {}) | _certificates(target)


def _port(host: str) -> str:
    """What follows a host, or an address in brackets."""
    return host.rpartition("]")[2].partition(":")[2]


def _certificates(target: Target) -> dict[str, str]:
    """What the URL says wins over these."""
    files, found = target.files, {}
    if files.ca or files.cert:
        found = {"PGSSLROOTCERT": str(files.ca or "system"), "PGSSLMODE": "verify-full"}
    if files.cert:
        found |= {"PGSSLCERT": str(files.cert), "PGSSLKEY": str(files.key or files.cert)}
    if target.direct_tls:
        found["PGSSLNEGOTIATION"] = "direct"
    return found

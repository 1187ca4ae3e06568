"""TLS on the way to Postgres: what the certificate files of the settings ask for, and in words why it fails."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import parse_qs, urlsplit

import asyncpg

from hub.errors import SetupError

_LAX: Final = ("disable", "allow", "prefer")
_MODES: Final = (*_LAX, "require", "verify-ca", "verify-full")
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_OWN: Final = (*_FILES, "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version")
"""What asyncpg reads from a URL only where it makes the context itself."""

# OpenSSL's X509_V_ERR_…: what the server's certificate is found to be.
_EXPIRED: Final = 10
_REVOKED: Final = 23
_MISNAMED: Final = (62, 64)  # a host, an address

_ALERTS: Final = {
    "UNKNOWN_CA": "it is of a CA that is unknown there. Add that to ssl_ca_file there",
    "CERTIFICATE_EXPIRED": "it has expired. Renew it",
    "CERTIFICATE_REVOKED": "it is revoked. Get a new one",
    "CERTIFICATE_REQUIRED": "there is none. Set one",
    "BAD_CERTIFICATE": "it is none for this. Get a new one",
    "UNSUPPORTED_CERTIFICATE": "it is none for this. Get a new one",
}
"""What a server says of a client's certificate before it hangs up."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: a bundle of CAs, the hub's certificate, and its key where that is not in the same file."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


NO_FILES: Final = Files()


def context(files: Files, dsn: str) -> ssl.SSLContext | None:
    """The context to connect to `dsn` with, from the files as they are now; None leaves it to the URL, as libpq has it.

    With a CA or a certificate TLS is demanded and all is verified: the host's name too, unless sslmode is verify-ca.
    Without a CA the system's are trusted. Raises SetupError, which names what cannot be read or contradicts.
    """
    given = {name: values[-1] for name, values in parse_qs(urlsplit(dsn).query).items()}
    if files.ca is None and files.cert is None:
        if files.key is not None:
            raise SetupError("HUB_DATABASE_KEY is the key of a certificate, and there is none. Set HUB_DATABASE_CERT.")
        for name in _FILES:
            _readable(f"{name} of the database URL", Path(given[name]) if name in given else None)
        return None
    _agree(given, "HUB_DATABASE_CERT" if files.ca is None else "HUB_DATABASE_CA")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = given.get("sslmode") != "verify-ca"
    made.set_alpn_protocols(["postgresql"])  # which Postgres insists on where TLS comes first
    _trust(made, files.ca)
    _present(made, files.cert, files.key)
    return made


def _agree(given: dict[str, str], setting: str) -> None:
    """Raise SetupError where the URL says what the context would silently override."""
    mode = given.get("sslmode", "require")
    if mode in _LAX:
        raise SetupError(
            f"sslmode={mode} in the database URL lets TLS be left out, and {setting} demands it. "
            "Write sslmode=verify-full, or unset that."
        )
    if mode not in _MODES:
        raise SetupError(f"sslmode in the database URL is none of {', '.join(_MODES)}. Write sslmode=verify-full.")
    if beside := next((name for name in _OWN if name in given), None):
        raise SetupError(
            f"{beside} in the database URL would not count beside {setting}. "
            "Name all certificates by settings, or all in the URL."
        )


def _trust(made: ssl.SSLContext, ca: Path | None) -> None:
    if ca is None:
        made.load_default_certs()
        return
    _readable("HUB_DATABASE_CA", ca)
    try:
        made.load_verify_locations(ca)
    except ssl.SSLError:
        raise SetupError(f"HUB_DATABASE_CA is {ca}, which holds no certificate. Give it one in PEM.") from None


def _present(made: ssl.SSLContext, cert: Path | None, key: Path | None) -> None:
    if cert is None:
        return
    _readable("HUB_DATABASE_CERT", cert)
    _readable("HUB_DATABASE_KEY", key)
    try:
        made.load_cert_chain(cert, key, password=lambda: _encrypted(key or cert))
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            text = f"The key in {key or cert} is not that of the certificate in {cert}. Check HUB_DATABASE_KEY."
        else:
            where = f"{cert} and {key}" if key else f"{cert}"
            text = f"No certificate and key are found in {where}. Set HUB_DATABASE_CERT and HUB_DATABASE_KEY to PEM."
        raise SetupError(text) from None


def _encrypted(key: Path) -> NoReturn:
    raise SetupError(
        f"The key in {key} is encrypted, and nobody is there to type its passphrase. "
        "Set HUB_DATABASE_KEY to a file with the key as `openssl pkey` writes it, which only the hub may read."
    )


def _readable(what: str, path: Path | None) -> None:
    """Python's own errors name no file here."""
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        advice = f" The system's CAs are in {ssl.get_default_verify_paths().cafile}." if path == Path("system") else ""
        raise SetupError(f"{what} is {path}, which cannot be read: {error.strerror}.{advice}") from None


def refused(error: BaseException | None) -> str | None:
    """Why the hub's certificate is refused and what to do, if that is what `error`, or its cause, is about."""
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        error = error.__cause__
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        if "valid client certificate" in str(error):
            return "there is none. Set HUB_DATABASE_CERT."
        if "certificate authentication failed" in str(error):
            return f"{error}. Its common name has to be the user."
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        return next((f"{text} (HUB_DATABASE_CERT)." for alert, text in _ALERTS.items() if reason.endswith(alert)), None)
    return None


def advice(error: asyncpg.InterfaceError) -> str:
    """What to do where asyncpg says what is wrong with settings."""
    if "direct TLS" in str(error):
        return " Write sslmode=verify-full into the database URL, or unset HUB_DIRECT_TLS."
    if "root certificate" in str(error):
        return " Set HUB_DATABASE_CA to a file of CA certificates."
    return ""


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with the server's certificate, and what to do."""
    found = error.verify_message.rstrip(".")
    match error.verify_code:
        case code if code in _MISNAMED:
            advice = "Write the host as the certificate has it, or sslmode=verify-ca."
        case code if code in (_EXPIRED, _REVOKED):
            advice = "Renew it there."
        case _:
            advice = "Set HUB_DATABASE_CA to the certificate of the CA that has signed it."
    return f"{found}. {advice}"

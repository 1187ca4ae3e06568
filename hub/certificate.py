"""The certificate that the hub shows to those who connect by TLS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from hub.errors import SetupError

_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Certificate:
    """A certificate and its key from PEM files; raises SetupError where they cannot be used.

    `context` is for a server. It serves whatever was read last, whole: each handshake is given a context that never
    changes. (Loaded into one that is in use, a key of another kind would stand beside the old one.)
    """

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._files = certificate, key
        self._current = self._read()
        self.context = self._read()
        self.context.sni_callback = self._choose  # is called for clients that name no host, too

    def reload(self) -> None:
        """Read the files again, for connections to come. Raises SetupError, and goes on with what it has."""
        self._current = self._read()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            for path in filter(None, self._files):
                path.open("rb").close()  # OpenSSL would not say which of them it cannot open
            context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ValueError) as error:
            raise SetupError(
                f"The hub's TLS files cannot be used: {_reason(error)}. Check HUB_TLS_CERT and HUB_TLS_KEY."
            ) from None
        return context


def _no_password() -> str:
    """In the place of OpenSSL's question at the terminal."""
    raise ValueError("the key is encrypted, and nobody is there to be asked for its password")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason in _MISMATCHES:
            return "the key is not that of the certificate"
        return error.reason.lower().replace("_", " ") if error.reason else "there is no certificate or no key in them"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)

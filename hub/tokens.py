"""Tokens: JSON web tokens (RFC 7519) that say who somebody is and what is granted to them.

A key goes with one algorithm, which its kind decides, so that nobody can pass a public key off as a secret.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import jwt
import msgspec
import orjson
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from jwt.exceptions import InvalidSignatureError, InvalidTokenError, PyJWTError
from msgspec import Meta

from hub import patterns
from hub.errors import Code, CommandError, SetupError
from hub.grants import LEEWAY, Grants

MAX_LENGTH: Final = 8 * 1024
"""Characters of a token."""
_SHARED: Final = "HS256"
_PUBLIC: Final = ("RS256", "ES256", "EdDSA")
_MIN_SECRET: Final = 32  # bytes: as many as the hash has (RFC 7518, 3.2)
_MAX_PATTERNS: Final = 100  # of a claim: each channel that is asked for is held against each of them
_MAX_KEYS: Final = 100
_LATEST: Final = 253_402_300_799  # the last second of the year 9999

Time = Annotated[float, Meta(ge=0, le=_LATEST)]


class _Claims(msgspec.Struct):
    exp: Time
    nbf: Time = 0
    aud: str | list[str] | None = None
    sub: str | None = None
    subscribe: list[str] = []
    publish: list[str] = []
    admin: bool = False


_claims: Final = msgspec.json.Decoder(_Claims)
_jws: Final = jwt.PyJWS()


class Key:
    """What signatures are checked with: by one algorithm; `kid` is its name, if it has one."""

    def __init__(self, algorithm: str, key: Any, kid: str | None = None) -> None:
        self.algorithm = algorithm
        self.key = key
        self.kid = kid

    def __repr__(self) -> str:
        return f"<Key {self.algorithm} kid={self.kid!r}>"

    def fits(self, algorithm: str, kid: str | None) -> bool:
        """Whether a token whose header says so may be signed with this one."""
        return algorithm == self.algorithm and (kid is None or self.kid is None or kid == self.kid)


class Tokens:
    """Verifies tokens: those by HS256 with `secret`, others with the keys in the file `public_key`, PEM or JWKS.

    With an `audience` only tokens that name it are good, without one only those that name none. Raises SetupError where
    a key is none, or too weak.
    """

    def __init__(
        self, *, secret: str | None = None, public_key: Path | None = None, audience: str | None = None
    ) -> None:
        self._secret = [] if secret is None else [Key(_SHARED, checked_secret(secret))]
        self._public_key = public_key
        self._audience = audience
        self._keys: list[Key] = []
        self.reload()

    def __repr__(self) -> str:
        return f"<Tokens {self._keys}>"

    @property
    def algorithms(self) -> list[str]:
        """Those by which a token may be signed."""
        return list(dict.fromkeys(key.algorithm for key in self._keys))

    def reload(self) -> None:
        """Read the file of keys again. Raises SetupError, and keeps the keys that it had, where the file is no good."""
        self._keys = self._secret + ([] if self._public_key is None else read_keys(self._public_key))

    def verify(self, text: str) -> Grants:
        """What the token `text` grants. Raises CommandError (`unauthenticated`), whose message says what is wrong."""
        payload = self._payload(text)
        try:
            claims = _claims.decode(payload)
            _check_names("subscribe", claims.subscribe)
            _check_names("publish", claims.publish)
            text = payload.decode()
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _refusal(f"The token's claims are not understood: {_detail(error)}.") from None
        self._check(claims, time.time())
        return Grants(claims.sub, tuple(claims.subscribe), tuple(claims.publish), claims.admin, claims.exp, text)

    def _payload(self, text: str) -> bytes:
        """The claims, if one of the keys has signed them."""
        if len(text) > MAX_LENGTH:
            raise _refusal(f"The token has {len(text)} characters; {MAX_LENGTH} are the most.")
        if not text.isascii():
            raise _refusal("This is no token: it has characters that none has.")
        try:
            return self._signed(text, jwt.get_unverified_header(text))
        except PyJWTError as error:
            if type(error) is InvalidTokenError or "b64" in str(error):  # PyJWT's, of headers that can be read
                raise _refusal(
                    "The token's header is not understood: its `kid` is no text, or by `crit` or `b64` it asks for "
                    "more than this hub can do."
                ) from None
            raise _refusal(
                "This is no token: a JSON web token has three parts of base64url, with dots between."
            ) from None

    def _signed(self, text: str, header: dict[str, Any]) -> bytes:
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            taken = " and ".join(self.algorithms)
            raise _refusal(f"The token is signed by {str(algorithm)[:20]!r}; this hub takes {taken}.")
        fitting = [key for key in self._keys if key.fits(algorithm, kid)]
        if not fitting:
            raise _refusal("The token names a key (`kid`) that this hub does not have.")
        for key in fitting:
            try:
                payload: bytes = _jws.decode_complete(text, key.key, algorithms=[key.algorithm])["payload"]
            except InvalidSignatureError:
                continue
            return payload
        raise _refusal("The token's signature is wrong: it was made with another key.")

    def _check(self, claims: _Claims, now: float) -> None:
        if claims.exp + LEEWAY <= now:
            raise _refusal("The token has expired; get a new one.")
        if claims.nbf - LEEWAY > now:
            raise _refusal("The token is not yet valid.")
        named = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if self._audience is None and named:
            raise _refusal("The token is for an audience (`aud`), and this hub has none set (HUB_AUDIENCE).")
        if self._audience is not None and self._audience not in (named or ()):
            raise _refusal("The token is for another audience (`aud`) than this hub's.")


def checked_secret(secret: str) -> bytes:
    """The secret as bytes. Raises SetupError for one that could be guessed, or that PyJWT takes for something else."""
    key = secret.encode(errors="surrogateescape")
    if len(key) < _MIN_SECRET:
        raise SetupError(
            f"HUB_SECRET has {len(key)} bytes; {_MIN_SECRET} are the least. Make one with: openssl rand -base64 32"
        )
    try:
        prepared: bytes = jwt.get_algorithm_by_name(_SHARED).prepare_key(key)
    except PyJWTError:
        raise SetupError(
            "HUB_SECRET looks like a key of another kind. Make one with: openssl rand -base64 32; "
            "a public key's file goes into HUB_PUBLIC_KEY."
        ) from None
    return prepared


def issue(secret: str, claims: dict[str, Any], seconds: float) -> str:
    """A token with `claims` that is good for `seconds` from now. Raises SetupError for a secret that is none."""
    now = int(time.time())
    payload = {name: value for name, value in claims.items() if value} | {"iat": now, "exp": now + int(seconds)}
    return _jws.encode(orjson.dumps(payload), checked_secret(secret), algorithm=_SHARED)


def read_keys(path: Path) -> list[Key]:
    """The public keys in a file of PEM or JWKS. Raises SetupError, which names the file, where there are none."""
    where = f"HUB_PUBLIC_KEY: {str(path)!r}"
    try:
        text = path.read_bytes()
        found = _jwks(orjson.loads(text)) if text.lstrip()[:1] == b"{" else _pem(text)
    except OSError as error:
        raise SetupError(f"{where} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, LookupError, AttributeError):
        found = []
    except _UnfitError as error:
        raise SetupError(f"{where} has {error}") from None
    if not found:
        raise SetupError(
            f"{where} has no key for {', '.join(_PUBLIC)}. It is to be the PEM of a public key (RSA of 2048 bits or "
            "more, P-256, Ed25519), or a JWKS."
        )
    if len(found) > _MAX_KEYS:
        raise SetupError(f"{where} has {len(found)} keys; {_MAX_KEYS} are the most. Leave out those that nobody uses.")
    return found


class _UnfitError(Exception):
    """What a file has and must not have, with which it is refused as a whole."""


_PRIVATE: Final = "a private key; the hub needs the public one only."


def _pem(text: bytes) -> list[Key]:
    if b"PRIVATE KEY" in text:
        raise _UnfitError(_PRIVATE)
    if text.count(b"-----BEGIN ") > 1:
        raise _UnfitError("several keys; PEM is for one. Make a JWKS of them.")
    for name in _PUBLIC:
        algorithm = jwt.get_algorithm_by_name(name)
        try:
            key = algorithm.prepare_key(text)
        except (PyJWTError, ValueError, TypeError):
            continue
        return [Key(name, key)] if _strong(algorithm, key) else []
    return []


def _jwks(found: Any) -> list[Key]:
    """Those of a set that are good for signatures by an algorithm of ours; a set may have others, too."""
    keys = []
    for each in found["keys"]:
        if each["kty"] == "oct" or each.get("use", "sig") != "sig":
            continue
        if "d" in each:
            raise _UnfitError(_PRIVATE)
        try:
            key = jwt.PyJWK(each)
        except (PyJWTError, NotImplementedError):  # the latter is for `none`
            continue
        if key.algorithm_name in _PUBLIC and _strong(key.Algorithm, key.key):
            if not isinstance(key.key_id, str | None):
                raise _UnfitError(f"a key whose `kid` is {str(key.key_id)[:20]!r}; it has to be text.")
            keys.append(Key(key.algorithm_name, key.key, key.key_id))
    return keys


def _strong(algorithm: Any, key: Any) -> bool:
    """Whether a key is long enough, and of a kind that clients have: EdDSA with Ed448 is not."""
    return not (algorithm.check_key_length(key) or isinstance(key, Ed448PublicKey))


def _check_names(claim: str, names: Sequence[str]) -> None:
    for name in names:
        if why := patterns.fault(name):
            raise _refusal(f"The token's claim `{claim}`: {name[:100]!r} {why}.")
    if sum(map(patterns.is_pattern, names)) > _MAX_PATTERNS:
        raise _refusal(f"The token's claim `{claim}` has more than {_MAX_PATTERNS} patterns.")


def _detail(error: Exception) -> str:
    found = str(error)[:200].encode(errors="replace").decode()
    return found.replace("Object missing required field", "there is no").replace("$.", "")


def _refusal(message: str) -> CommandError:
    return CommandError(Code.UNAUTHENTICATED, message)

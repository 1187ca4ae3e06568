"""Tokens: which are good, and what is said of those that are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from hub import protocol, tokens
from hub.errors import Code, CommandError, SetupError
from hub.tokens import Tokens

SECRET = "correct horse battery staple, twice"
LATER = 4_000_000_000
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def token(key: Any = SECRET, algorithm: str = "HS256", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    return jwt.encode({"exp": LATER} | claims, key, algorithm, headers)


def raw(payload: bytes) -> str:
    """A token of any bytes, rightly signed."""
    return jwt.PyJWS().encode(payload, SECRET, "HS256")


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwk(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    converters: dict[type, Callable[[Any], str]] = {
        rsa.RSAPrivateKey: RSAAlgorithm.to_jwk,
        ec.EllipticCurvePrivateKey: ECAlgorithm.to_jwk,
        ed25519.Ed25519PrivateKey: OKPAlgorithm.to_jwk,
    }
    convert = next(convert for kind, convert in converters.items() if isinstance(key, kind))
    return json.loads(convert(key.public_key())) | ({} if kid is None else {"kid": kid}) | more


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes | list[dict[str, Any]]], Path]:
    """Writes a file of keys."""

    def write(content: bytes | list[dict[str, Any]]) -> Path:
        path = tmp_path / "keys"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps({"keys": content}).encode())
        return path

    return write


def refusal(verifier: Tokens, text: str) -> str:
    with pytest.raises(CommandError) as refused:
        verifier.verify(text)
    assert refused.value.code is Code.UNAUTHENTICATED
    return refused.value.message


def test_a_token_says_who_it_is_and_what_is_granted() -> None:
    grants = Tokens(secret=SECRET).verify(token(sub="alice", subscribe=["orders.*"], publish=["chat"], tenant=7))
    assert (grants.subject, grants.subscribe, grants.publish) == ("alice", ("orders.*",), ("chat",))
    assert (grants.admin, grants.expires) == (False, LATER)
    assert json.loads(grants.claims)["tenant"] == 7


def test_one_that_grants_nothing_is_a_token_too() -> None:
    assert Tokens(secret=SECRET).verify(token()).empty


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("form", ["PEM", "JWKS"])
def test_public_keys_verify_by_the_algorithm_of_their_kind(
    file: Callable[..., Path], algorithm: str, form: str
) -> None:
    key = KEYS[algorithm]
    verifier = Tokens(public_key=file(pem(key) if form == "PEM" else [jwk(key)]))
    assert verifier.verify(token(key, algorithm, sub="alice")).subject == "alice"


def test_a_secret_and_public_keys_go_together(file: Callable[..., Path]) -> None:
    verifier = Tokens(secret=SECRET, public_key=file(pem(EC)))
    assert verifier.verify(token(sub="a")).subject == "a"
    assert verifier.verify(token(EC, "ES256", sub="b")).subject == "b"


# Forgeries


def test_alg_none_is_refused() -> None:
    unsigned = jwt.encode({"exp": LATER, "admin": True}, "", "none")
    assert refusal(Tokens(secret=SECRET), unsigned) == "The token is signed by 'none'; this hub takes HS256."


@pytest.mark.parametrize("alg", ["None", "NONE", "hs256", "", None, 256, ["HS256"], {"HS256": 1}])
def test_so_is_any_other_that_the_hub_does_not_take(alg: Any) -> None:
    head, rest = token(admin=True).split(".", 1)
    head = jwt.utils.base64url_encode(json.dumps({"alg": alg}).encode()).decode()
    assert "this hub takes HS256" in refusal(Tokens(secret=SECRET), f"{head}.{rest}")


@pytest.mark.parametrize("form", ["PEM", "JWKS"])
def test_a_public_key_is_no_secret(file: Callable[..., Path], form: str) -> None:
    """Whoever has the public key could sign with it, if the algorithm were the token's to choose."""
    path = file(pem(RSA) if form == "PEM" else [jwk(RSA)])
    head, body = (
        jwt.utils.base64url_encode(json.dumps(part).encode()).decode()
        for part in ({"alg": "HS256", "typ": "JWT"}, {"exp": LATER, "admin": True})
    )
    signature = jwt.get_algorithm_by_name("HS256").sign(f"{head}.{body}".encode(), path.read_bytes())
    forged = f"{head}.{body}.{jwt.utils.base64url_encode(signature).decode()}"
    assert "signed by 'HS256'; this hub takes RS256" in refusal(Tokens(public_key=path), forged)


def test_a_set_gives_no_secret_away(file: Callable[..., Path]) -> None:
    shared = {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}
    verifier = Tokens(public_key=file([shared, jwk(EC)]))
    forged = token("secretsecretsecretsecretsecret" + "x" * 10)
    assert "this hub takes ES256" in refusal(verifier, forged)


def test_another_key_is_told_from_ours(file: Callable[..., Path]) -> None:
    assert "signature is wrong" in refusal(Tokens(secret=SECRET), token("another secret of more than 32 bytes"))
    other = rsa.generate_private_key(65537, 2048)
    assert "signature is wrong" in refusal(Tokens(public_key=file(pem(RSA))), token(other, "RS256"))


def test_a_changed_token_is_refused() -> None:
    head, _, signature = token().split(".")
    body = jwt.utils.base64url_encode(b'{"exp":4000000000,"admin":true}').decode()
    assert "signature is wrong" in refusal(Tokens(secret=SECRET), f"{head}.{body}.{signature}")


# Sets of keys


def test_kid_picks_a_key_of_the_set(file: Callable[..., Path]) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    verifier = Tokens(public_key=file([jwk(EC, "old"), jwk(other, "new")]))
    assert verifier.verify(token(other, "ES256", headers={"kid": "new"}))
    assert "signature is wrong" in refusal(verifier, token(other, "ES256", headers={"kid": "old"}))
    assert "names a key" in refusal(verifier, token(other, "ES256", headers={"kid": "gone"}))


def test_a_token_that_names_none_may_be_of_any_of_them(file: Callable[..., Path]) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    verifier = Tokens(public_key=file([jwk(EC, "old"), jwk(other, "new")]))
    assert verifier.verify(token(other, "ES256"))


def test_a_kid_matters_to_named_keys_only(file: Callable[..., Path]) -> None:
    assert Tokens(public_key=file(pem(EC))).verify(token(EC, "ES256", headers={"kid": "whatever"}))


def test_what_a_set_has_besides_does_no_harm(file: Callable[..., Path]) -> None:
    strange = [
        {"kty": "new"},
        jwk(RSA, "unsigned", alg="none"),
        jwk(RSA, "for encryption", use="enc"),
        jwk(RSA, "weaker", alg="RS512"),
        {"kty": "EC"},
    ]
    verifier = Tokens(public_key=file([*strange, jwk(EC)]))
    assert "this hub takes ES256" in refusal(verifier, token(RSA, "RS256"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no key for RS256, ES256, EdDSA"),
        (b"nonsense", "has no key for"),
        (b"{", "has no key for"),
        (b"{}", "has no key for"),
        (b'{"keys":7}', "has no key for"),
        (b'{"keys":[7]}', "has no key for"),
        (b'{"keys":[]}', "has no key for"),
        (pem(rsa.generate_private_key(65537, 1024)), "has no key for"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "has no key for"),
        (pem(ed448.Ed448PrivateKey.generate()), "has no key for"),
        (pem(EC) + pem(ED), "has several keys; PEM is for one"),
        (b"\xff" * 100, "has no key for"),
        (EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "has a private key"),
    ],
)
def test_a_file_without_a_good_key_is_refused_by_name(file: Callable[..., Path], content: bytes, sentence: str) -> None:
    path = file(content)
    with pytest.raises(SetupError, match=sentence) as failure:
        Tokens(public_key=path)
    assert str(path) in str(failure.value)


def test_so_is_a_private_key_in_a_set(file: Callable[..., Path]) -> None:
    with pytest.raises(SetupError, match="has a private key"):
        Tokens(public_key=file([json.loads(ECAlgorithm.to_jwk(EC))]))


def test_so_is_a_key_whose_name_is_no_text(file: Callable[..., Path]) -> None:
    with pytest.raises(SetupError, match="has a key whose `kid` is '5'; it has to be text"):
        Tokens(public_key=file([jwk(RSA), jwk(EC) | {"kid": 5}]))


def test_so_is_a_set_of_too_many(file: Callable[..., Path]) -> None:
    with pytest.raises(SetupError, match="has 101 keys; 100 are the most"):
        Tokens(public_key=file([jwk(EC, str(number)) for number in range(101)]))


def test_so_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read: No such file"):
        Tokens(public_key=tmp_path / "gone")


def test_reading_the_file_again_changes_the_keys(file: Callable[..., Path]) -> None:
    verifier = Tokens(public_key=file(pem(EC)))
    file(pem(ED))
    verifier.reload()
    assert verifier.verify(token(ED, "EdDSA"))
    assert "this hub takes EdDSA" in refusal(verifier, token(EC, "ES256"))


def test_a_broken_file_leaves_them_as_they_were(file: Callable[..., Path]) -> None:
    verifier = Tokens(public_key=file(pem(EC)))
    file(b"half a key")
    with pytest.raises(SetupError):
        verifier.reload()
    assert verifier.verify(token(EC, "ES256"))


# Secrets


@pytest.mark.parametrize("secret", ["", "x" * 31])
def test_a_secret_that_could_be_guessed_is_refused(secret: str) -> None:
    with pytest.raises(SetupError, match=r"HUB_SECRET has \d+ bytes; 32 are the least") as failure:
        Tokens(secret=secret)
    assert "xxx" not in str(failure.value)


@pytest.mark.parametrize("secret", [pem(RSA).decode(), json.dumps(jwk(RSA))], ids=["PEM", "JWK"])
def test_a_public_key_in_its_place_is_refused(secret: str) -> None:
    with pytest.raises(SetupError, match="HUB_PUBLIC_KEY"):
        Tokens(secret=secret)


def test_a_secret_never_shows(file: Callable[..., Path]) -> None:
    verifier = Tokens(secret=SECRET, public_key=file(pem(EC)))
    assert SECRET not in repr(verifier) + repr(vars(verifier))


# Times and audiences


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"exp": 1_700_000_000}, "The token has expired; get a new one."),
        ({"exp": 0}, "The token has expired; get a new one."),
        ({"nbf": LATER - 1}, "The token is not yet valid."),
    ],
)
def test_a_token_has_its_time(claims: dict[str, Any], sentence: str) -> None:
    assert refusal(Tokens(secret=SECRET), token(**claims)) == sentence


def test_clocks_may_differ_by_ten_seconds() -> None:
    now = time.time()
    assert Tokens(secret=SECRET).verify(token(exp=now - 5, nbf=now + 5))


def test_a_token_without_an_end_is_refused() -> None:
    assert "there is no `exp`" in refusal(Tokens(secret=SECRET), raw(b'{"admin":true}'))


@pytest.mark.parametrize("claims", [{"aud": "hub"}, {"aud": ["other", "hub"]}])
def test_the_right_audience(claims: dict[str, Any]) -> None:
    assert Tokens(secret=SECRET, audience="hub").verify(token(**claims))


@pytest.mark.parametrize("claims", [{}, {"aud": "other"}, {"aud": []}, {"aud": ["other"]}, {"aud": "hub2"}])
def test_a_wrong_audience(claims: dict[str, Any]) -> None:
    assert "another audience" in refusal(Tokens(secret=SECRET, audience="hub"), token(**claims))


def test_an_audience_that_the_hub_has_not() -> None:
    """RFC 7519, 4.1.3: who is not in there must not take it."""
    assert "HUB_AUDIENCE" in refusal(Tokens(secret=SECRET), token(aud="hub"))


# Shapes


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é",
        "\udcff",
        "a b.c.d",
        token()[:-3] + "!!!",
        token() + ".x",
        "x" * 100,
        "{}",
        "\n" + token(),
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert refusal(Tokens(secret=SECRET), text)


@pytest.mark.parametrize("header", [{"kid": 5}, {"crit": ["new"], "new": 1}, {"crit": []}, {"b64": False}])
def test_headers_that_are_not_understood_are_refused(header: dict[str, Any]) -> None:
    head, rest = token().split(".", 1)
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256"} | header).encode()).decode()
    assert "header is not understood" in refusal(Tokens(secret=SECRET), f"{head}.{rest}")


def test_a_huge_token_is_not_even_looked_at() -> None:
    big = token(subscribe=["x" * 50] * 200)
    assert refusal(Tokens(secret=SECRET), big) == f"The token has {len(big)} characters; 8192 are the most."


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        (b"", "not understood"),
        (b"[]", "Expected `object`"),
        (b"\xff", "not understood"),
        (b'{"exp":4e9,"x":"\xff"}', "not understood"),
        (b'{"exp":NaN}', "not understood"),
        (b'{"exp":Infinity}', "not understood"),
        (b'{"exp":1e300}', "at `exp`"),
        (b'{"exp":-1}', "at `exp`"),
        (b'{"exp":"4000000000"}', "at `exp`"),
        (b'{"exp":true}', "at `exp`"),
        (b'{"exp":4e9,"nbf":"x"}', "at `nbf`"),
        (b'{"exp":4e9,"aud":7}', "at `aud`"),
        (b'{"exp":4e9,"sub":7}', "at `sub`"),
        (b'{"exp":4e9,"sub":"\\ud800"}', "not understood"),
        (b'{"exp":4e9,"admin":1}', "at `admin`"),
        (b'{"exp":4e9,"admin":"true"}', "at `admin`"),
        (b'{"exp":4e9,"subscribe":"orders"}', "at `subscribe`"),
        (b'{"exp":4e9,"subscribe":["a",1]}', "at `subscribe[1]`"),
        (b'{"exp":4e9,"publish":null}', "at `publish`"),
        (b'{"exp":4e9,"x":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "not understood"),
    ],
)
def test_claims_of_a_wrong_type_are_refused(payload: bytes, part: str) -> None:
    assert part in refusal(Tokens(secret=SECRET), raw(payload))


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["orders*"], "'orders*' is no pattern"),
        (["a", "**.b"], "'**.b' is no pattern"),
        ([""], "'' is empty"),
        (["x" * 64], "has 64 bytes"),
        (["a\n"], "control character"),
        ([f"{number}.*" for number in range(101)], "more than 100 patterns"),
    ],
)
def test_patterns_that_are_none_are_refused(names: list[str], part: str) -> None:
    for claim in ("subscribe", "publish"):
        message = refusal(Tokens(secret=SECRET), token(**{claim: names}))
        assert f"`{claim}`" in message
        assert part in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda of: st.lists(of, max_size=3)
)
CLAIMS = st.dictionaries(st.sampled_from(["exp", "nbf", "aud", "sub", "subscribe", "publish", "admin", "x"]), JSON)


@settings(deadline=None)
@given(st.text() | st.binary().map(raw) | CLAIMS.map(lambda claims: token(**claims)))
def test_nothing_breaks_it(text: str) -> None:
    try:
        grants = Tokens(secret=SECRET).verify(text)
    except CommandError as error:
        answer = protocol.error(error)
    else:
        answer = protocol.authenticated(1, grants.subject, grants.expires)
    assert orjson.loads(answer).get("code", "unauthenticated") == "unauthenticated"


# Handing out


def test_a_token_that_is_issued_is_good() -> None:
    claims = {"sub": "alice", "subscribe": ["a"], "publish": None, "admin": False}
    grants = Tokens(secret=SECRET).verify(tokens.issue(SECRET, claims, 60))
    assert (grants.subject, grants.subscribe, grants.publish, grants.admin) == ("alice", ("a",), (), False)
    assert grants.expires is not None
    assert 0 < grants.expires - time.time() <= 60

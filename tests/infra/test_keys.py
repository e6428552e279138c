"""The key ring: what signs, what verifies, since and until when, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sofinance.config import Settings
from sofinance.infra import keys as ringing
from sofinance.infra.command import SetupError
from sofinance.infra.errors import ApiError
from sofinance.infra.key_files import ALGORITHMS, make_key, thumbprint
from sofinance.infra.keys import KeyRing

if TYPE_CHECKING:
    from pathlib import Path

BEGAN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OVERLAP_S, ACTIVATION_S = 3_600, 120
KINDS = ("eddsa", "es256", "hs256")


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = BEGAN.timestamp()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s

    @property
    def now(self) -> datetime:
        """The time, as a person writes it."""
        return datetime.fromtimestamp(self.now_s, UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def settings(**changes: Any) -> Settings:
    return replace(Settings.for_tests(database_url="postgresql://x/y"), **changes)


def ring_of(folder: Path, clock: Clock, **changes: Any) -> KeyRing:
    options: dict[str, Any] = {
        "jwt_secret": "",
        "jwt_keys_dir": str(folder),
        "jwt_key_overlap_minutes": OVERLAP_S // 60,
        "jwt_key_activation_s": ACTIVATION_S,
        **changes,
    }
    return KeyRing.configured(settings(**options), clock=clock)


def claims(clock: Clock, **changes: Any) -> dict[str, Any]:
    now_s = int(clock())
    return {"sub": "7", "org": 3, "sid": 11, "iat": now_s, "exp": now_s + 900, **changes}


def reason(ring: KeyRing, token: str) -> str:
    with pytest.raises(ApiError) as caught:
        ring.verify(token)
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    assert 'error="invalid_token"' in caught.value.headers["WWW-Authenticate"]
    return str(caught.value.details["reason"])


def encode(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


# -- signing and verifying -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_signed_it_verifies(tmp_path: Path, clock: Clock, kind: str):
    make_key(tmp_path, kind, now=clock.now)
    ring = ring_of(tmp_path, clock)
    token = ring.sign(claims(clock))
    assert ring.verify(token) == {**claims(clock), "iss": "sofinance", "aud": "sofinance"}
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("at+jwt", ALGORITHMS[kind])
    assert header["kid"] == ring.signing.kid


def test_a_secret_of_the_settings_signs_and_the_previous_one_only_verifies(clock: Clock):
    before = KeyRing.configured(settings(jwt_secret="a" * 32), clock=clock)
    during = KeyRing.configured(
        settings(jwt_secret="b" * 32, jwt_secret_previous="a" * 32), clock=clock
    )
    after = KeyRing.configured(settings(jwt_secret="b" * 32), clock=clock)
    old, new = before.sign(claims(clock)), during.sign(claims(clock))
    assert kid_of(old) != kid_of(new)
    assert during.verify(old)["sub"] == "7"
    assert after.verify(new)["sub"] == "7"
    assert reason(after, old) == "token_invalid"
    assert reason(before, new) == "token_invalid"


def test_a_kid_does_not_give_its_secret_away(clock: Clock):
    ring = KeyRing.configured(settings(jwt_secret="a" * 32), clock=clock)
    kid = ring.signing.kid
    assert "a" * 4 not in kid
    assert base64.urlsafe_b64encode(hashlib.sha256(b"a" * 32).digest()).decode()[:16] != kid
    assert ring.jwks() == {"keys": []}
    assert "aaaa" not in repr(ring.signing)


def test_the_thumbprint_is_that_of_the_standard():
    # Source: RFC 8037, appendix A.3.
    assert (
        thumbprint({
            "crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        })
        == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["eddsa", "es256"])
def test_public_keys_are_published_and_verify_what_was_signed(
    tmp_path: Path, clock: Clock, kind: str
):
    make_key(tmp_path, kind, now=clock.now)
    ring = ring_of(tmp_path, clock)
    (shown,) = ring.jwks()["keys"]
    assert "d" not in shown
    assert (shown["kid"], shown["use"]) == (ring.signing.kid, "sig")
    token = ring.sign(claims(clock, exp=2**40))
    known = jwt.PyJWKSet.from_dict(ring.jwks())[kid_of(token)]
    read = jwt.decode(
        token, known, audience="sofinance", options={"verify_exp": False, "verify_iat": False}
    )
    assert read["sub"] == "7"


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": BEGAN.timestamp()}, "token_expired"),
        ({"exp": BEGAN.timestamp() - 1}, "token_expired"),
        ({"nbf": BEGAN.timestamp() + 61}, "token_not_yet_valid"),
        ({"nbf": "soon"}, "token_invalid"),
        ({"exp": "never"}, "token_invalid"),
        ({"exp": True}, "token_invalid"),
        ({"exp": None}, "token_invalid"),
        ({"iat": None}, "token_invalid"),
        ({"sub": None}, "token_invalid"),
        ({"sub": 7}, "token_invalid"),
    ],
)
def test_a_token_out_of_its_time_or_shape_is_refused(clock: Clock, changes: Any, why: str):
    ring = KeyRing.configured(settings(), clock=clock)
    assert reason(ring, ring.sign(claims(clock, **changes))) == why


def test_a_clock_a_little_ahead_is_forgiven(clock: Clock):
    ring = KeyRing.configured(settings(), clock=clock)
    assert ring.verify(ring.sign(claims(clock, nbf=clock() + 60, iat=clock() + 600)))


@pytest.mark.parametrize("changes", [{"jwt_issuer": "x"}, {"jwt_audience": "x"}])
def test_another_issuers_or_audiences_token_is_refused(clock: Clock, changes: dict[str, str]):
    ring = KeyRing.configured(settings(), clock=clock)
    other = KeyRing.configured(settings(**changes), clock=clock)
    assert kid_of(other.sign(claims(clock))) == ring.signing.kid
    assert reason(ring, other.sign(claims(clock))) == "token_invalid"


def test_a_header_says_everything_right_or_is_refused(tmp_path: Path, clock: Clock):
    make_key(tmp_path, "hs256", now=clock.now)
    ring = ring_of(tmp_path, clock)
    key = ring.signing
    full = {**claims(clock), "iss": "sofinance", "aud": "sofinance"}

    def signed(algorithm: str = "HS256", **header: Any) -> str:
        return jwt.encode(full, key.signing, algorithm, headers=header)

    good = {"kid": key.kid, "typ": "at+jwt"}
    assert ring.verify(signed(**good))["sub"] == "7"
    assert ring.verify(signed(**{**good, "typ": "application/AT+JWT"}))["sub"] == "7"
    assert ring.verify(signed(**good, jku="https://evil.example", x5u="x", jwk={}))["sub"] == "7"
    for bad in (
        {"typ": "at+jwt"},
        {**good, "kid": "another"},
        {**good, "kid": ""},
        {**good, "typ": "JWT"},
        {**good, "typ": None},
        {**good, "crit": ["exp"], "exp": 1},
    ):
        assert reason(ring, signed(**bad)) == "token_invalid", bad
    secret = key.signing
    assert isinstance(secret, bytes)
    assert reason(ring, signed("HS512", **good)) == "token_invalid"
    for other in (7, [key.kid], {"kid": key.kid}):
        header = encode({"alg": "HS256", "typ": "at+jwt", "kid": other})
        content = f"{header}.{encode(full)}"
        mac = hmac.digest(secret, content.encode(), "sha256")
        token = f"{content}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        assert reason(ring, token) == "token_invalid"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_refused(clock: Clock, name: str):
    ring = KeyRing.configured(settings(), clock=clock)
    header = encode({"alg": name, "typ": "at+jwt", "kid": ring.signing.kid})
    full = encode({**claims(clock), "iss": "sofinance", "aud": "sofinance"})
    assert reason(ring, f"{header}.{full}.") == "token_invalid"


@pytest.mark.parametrize("kind", ["eddsa", "es256"])
def test_a_public_key_is_no_secret_to_sign_with(tmp_path: Path, clock: Clock, kind: str):
    make_key(tmp_path, kind, now=clock.now)
    ring = ring_of(tmp_path, clock)
    public = ring.signing.verifying
    assert not isinstance(public, bytes)
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    full = encode({**claims(clock), "iss": "sofinance", "aud": "sofinance"})
    for secret in (pem, pem.strip(), json.dumps(ring.jwks()).encode()):
        header = encode({"alg": "HS256", "typ": "at+jwt", "kid": ring.signing.kid})
        mac = hmac.digest(secret, f"{header}.{full}".encode(), "sha256")
        token = f"{header}.{full}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        assert reason(ring, token) == "token_invalid"


def test_a_tampered_or_huge_token_is_refused(clock: Clock):
    ring = KeyRing.configured(settings(), clock=clock)
    header, _, signature = ring.sign(claims(clock)).split(".")
    forged = encode({**claims(clock, sub="1"), "iss": "sofinance", "aud": "sofinance"})
    assert reason(ring, f"{header}.{forged}.{signature}") == "token_invalid"
    for token in ("", ".", "..", "x.y.z", "é.é.é", "\0", ring.sign(claims(clock, x="y" * 4_096))):
        assert reason(ring, token) == "token_invalid"


# -- rotating ------------------------------------------------------------------------------------


def test_old_tokens_live_through_a_rotation_then_die(tmp_path: Path, clock: Clock):
    make_key(tmp_path, "eddsa", now=clock.now)
    ring, other = ring_of(tmp_path, clock), ring_of(tmp_path, clock)
    old = ring.sign(claims(clock, exp=2**40))
    clock.now_s += 86_400
    make_key(tmp_path, "es256", now=clock.now)
    assert ring.refresh()
    assert not ring.refresh()
    assert len(ring.jwks()["keys"]) == 2  # shown before it signs
    assert kid_of(ring.sign(claims(clock))) == kid_of(old)  # not every worker knows it yet
    clock.now_s += ACTIVATION_S
    new = ring.sign(claims(clock))
    assert kid_of(new) != kid_of(old)
    assert other.verify(new)["sub"] == "7"  # looked into the folder for what it did not know
    assert ring.verify(old)["sub"] == "7"
    clock.now_s += OVERLAP_S - 1
    assert ring.verify(old)["sub"] == "7"
    clock.now_s += 1
    assert reason(ring, old) == "token_invalid"
    assert [key["kid"] for key in ring.jwks()["keys"]] == [kid_of(new)]


def test_a_first_key_signs_at_once(tmp_path: Path, clock: Clock):
    make_key(tmp_path, "eddsa", now=clock.now)
    assert ring_of(tmp_path, clock).sign(claims(clock))


def test_a_key_made_long_ago_that_comes_now_waits_as_well(tmp_path: Path, clock: Clock):
    make_key(tmp_path, "eddsa", now=clock.now)
    clock.now_s += 86_400
    ring = ring_of(tmp_path, clock)
    first = ring.signing
    make_key(tmp_path, "eddsa", now=clock.now - timedelta(hours=5))
    ring.refresh()
    assert ring.signing == first
    clock.now_s += ACTIVATION_S
    assert ring.signing != first


def test_a_key_between_two_others_does_not_prolong_the_first(tmp_path: Path, clock: Clock):
    for hours in (0, 2):
        make_key(tmp_path, "eddsa", now=BEGAN + timedelta(hours=hours))
    clock.now_s += 86_400
    ring = ring_of(tmp_path, clock)
    assert ring.terms[0].state(clock(), ring.signing) == "retired"
    make_key(tmp_path, "eddsa", now=BEGAN + timedelta(hours=1))
    assert ring.refresh()
    assert ring.terms[0].state(clock(), ring.signing) == "retired"


def test_a_key_that_is_taken_away_is_gone_at_the_next_look(tmp_path: Path, clock: Clock):
    stolen = make_key(tmp_path, "eddsa", now=clock.now)
    make_key(tmp_path, "eddsa", now=clock.now + timedelta(seconds=1))
    clock.now_s += 86_400
    ring = ring_of(tmp_path, clock, jwt_key_overlap_minutes=43_200)
    assert [term.state(clock(), ring.signing) for term in ring.terms] == ["verifying", "signing"]
    stolen.unlink()
    assert ring.refresh()
    assert len(ring.terms) == 1


def test_an_unknown_kid_makes_it_look_once_a_second(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    make_key(tmp_path, "eddsa", now=clock.now)
    ring, other = ring_of(tmp_path, clock), KeyRing.configured(settings(), clock=clock)
    looked: list[Any] = []
    monkeypatch.setattr(ringing, "listing", lambda folder: looked.append(folder) or ring._found)  # noqa: SLF001
    for _ in range(100):
        assert reason(ring, other.sign(claims(clock))) == "token_invalid"
    assert len(looked) == 1
    clock.now_s += 1
    reason(ring, other.sign(claims(clock)))
    assert len(looked) == 2


def test_moving_from_a_secret_to_a_folder_signs_nobody_out(tmp_path: Path, clock: Clock):
    before = KeyRing.configured(settings(jwt_secret="a" * 32), clock=clock)
    old = before.sign(claims(clock))
    make_key(tmp_path, "eddsa", now=clock.now)
    ring = ring_of(tmp_path, clock, jwt_secret="a" * 32)
    assert ring.verify(old)["sub"] == "7"
    assert kid_of(ring.sign(claims(clock))) != kid_of(old)
    assert [term.state(clock(), ring.signing) for term in ring.terms] == ["verifying", "signing"]


def test_a_new_key_that_cannot_be_read_changes_nothing_but_is_told(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
):
    make_key(tmp_path, "eddsa", now=clock.now)
    ring = ring_of(tmp_path, clock)
    (tmp_path / "20261121T100000Z-eddsa.pem").write_text("half of a k")
    with caplog.at_level(logging.ERROR):
        assert not ring.refresh()
    assert "20261121T100000Z-eddsa.pem: it is no unencrypted private key" in caplog.text
    assert ring.sign(claims(clock))


# -- files ---------------------------------------------------------------------------------------


def test_a_key_file_is_its_owners_and_is_never_written_over(tmp_path: Path, clock: Clock):
    path = make_key(tmp_path, "hs256", now=clock.now)
    assert path.name == "20261121T090000Z-hs256.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    with pytest.raises(FileExistsError):
        make_key(tmp_path, "hs256", now=clock.now)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def pem(key: Any, *, password: bytes | None = None) -> bytes:
    locked = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("key.pem", b"x", "its name does not say"),
        ("20261121T090000Z-eddsa.key", b"x", "its name does not say"),
        ("20261121T090000Z-rs256.pem", b"x", "its name does not say"),
        ("20261399T090000Z-eddsa.pem", b"x", "no such time"),
        ("20261121T090000Z-eddsa.pem", b"", "no unencrypted private key"),
        ("20261121T090000Z-hs256.key", b"short", "the secret has 5 bytes"),
        ("20261121T090000Z-hs256.key", b"-----BEGIN PUBLIC KEY-----" + b"x" * 90, "a PEM key"),
        ("20261121T090000Z-hs256.key", b"x" * 20_000, "too large"),
    ],
)
def test_a_file_that_is_no_key_is_refused_at_start(
    tmp_path: Path, clock: Clock, name: str, content: bytes, problem: str
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError) as caught:
        ring_of(tmp_path, clock)
    assert problem in caught.value.message
    assert name in caught.value.message


def test_a_key_of_another_kind_than_its_name_says_is_refused(tmp_path: Path, clock: Clock):
    eddsa, es256 = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    cases = (
        ("eddsa", pem(es256), "it is no key for EdDSA"),
        ("es256", pem(eddsa), "it is no key for ES256"),
        ("es256", pem(ec.generate_private_key(ec.SECP384R1())), "it is no key for ES256"),
        ("eddsa", pem(rsa.generate_private_key(65_537, 2_048)), "it is no key for EdDSA"),
        ("eddsa", pem(eddsa, password=b"pw"), "no unencrypted private key"),
    )
    for kind, content, problem in cases:
        (tmp_path / f"20261121T090000Z-{kind}.pem").write_bytes(content)
        with pytest.raises(SetupError) as caught:
            ring_of(tmp_path, clock)
        assert problem in caught.value.message
        (tmp_path / f"20261121T090000Z-{kind}.pem").unlink()


def test_no_key_no_folder_and_too_many_keys_are_refused(tmp_path: Path, clock: Clock):
    with pytest.raises(SetupError, match="no key to sign"):
        ring_of(tmp_path, clock)
    with pytest.raises(SetupError, match="cannot read"):
        ring_of(tmp_path / "nowhere", clock)
    for number in range(21):
        make_key(tmp_path, "hs256", now=BEGAN + timedelta(seconds=number))
    with pytest.raises(SetupError, match="21 keys"):
        ring_of(tmp_path, clock)


def test_half_written_files_and_directories_are_no_keys(tmp_path: Path, clock: Clock):
    make_key(tmp_path, "eddsa", now=clock.now)
    (tmp_path / ".20261121T100000Z-eddsa.pem.partial").write_text("half")
    (tmp_path / "..data").mkdir()
    assert len(ring_of(tmp_path, clock).terms) == 1

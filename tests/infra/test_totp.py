"""Codes of an authenticator: the standard's own examples, one use each, a step of tolerance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from sofinance.infra import totp

SECRET = b"12345678901234567890"
NOW = datetime(2026, 11, 21, 9, 0, 10, tzinfo=UTC)
NOW_STEP = totp.step_at(NOW)


@pytest.mark.parametrize(
    ("time_s", "code"),
    # Source: RFC 6238, appendix B, SHA-1.
    [
        (59, "94287082"),
        (1_111_111_109, "07081804"),
        (1_111_111_111, "14050471"),
        (1_234_567_890, "89005924"),
        (2_000_000_000, "69279037"),
        (20_000_000_000, "65353130"),
    ],
)
def test_codes_are_those_of_the_standard(time_s: int, code: str):
    step = totp.step_at(datetime.fromtimestamp(time_s, UTC))
    assert totp.code_at(SECRET, step, digits=8) == code
    assert totp.code_at(SECRET, step) == code[2:]


@pytest.mark.parametrize(
    ("step", "code"),
    # Source: RFC 4226, appendix D.
    [
        (0, "755224"),
        (1, "287082"),
        (2, "359152"),
        (3, "969429"),
        (4, "338314"),
        (5, "254676"),
        (6, "287922"),
        (7, "162583"),
        (8, "399871"),
        (9, "520489"),
    ],
)
def test_codes_are_those_of_the_counter(step: int, code: str):
    assert totp.code_at(SECRET, step) == code


@pytest.mark.parametrize(
    ("steps_off", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_a_clock_may_be_a_step_off(steps_off: int, good: bool):  # noqa: FBT001 - a table's column
    code = totp.code_at(SECRET, NOW_STEP + steps_off)
    found = totp.accept(SECRET, code, last_step=None, now=NOW)
    assert found == (NOW_STEP + steps_off if good else None)


def test_a_code_is_good_once_and_none_before_it_is_good_after():
    code = totp.code_at(SECRET, NOW_STEP)
    used = totp.accept(SECRET, code, last_step=NOW_STEP - 1, now=NOW)
    assert used == NOW_STEP
    later = NOW + timedelta(seconds=totp.STEP_S)
    for when in (NOW, later):
        assert totp.accept(SECRET, code, last_step=used, now=when) is None
    earlier = totp.code_at(SECRET, NOW_STEP - 1)
    assert totp.accept(SECRET, earlier, last_step=used, now=NOW) is None
    following = totp.code_at(SECRET, NOW_STEP + 1)
    assert totp.accept(SECRET, following, last_step=used, now=later) == NOW_STEP + 1


def test_spaces_are_forgiven_and_nothing_else_is():
    code = totp.code_at(SECRET, NOW_STEP)
    assert totp.accept(SECRET, f" {code[:3]} {code[3:]} ", last_step=None, now=NOW) == NOW_STEP
    arabic = code.translate({ord("0") + n: 0x0660 + n for n in range(10)})
    for bad in ("", "1", code[:-1], code + "0", "abcdef", arabic, "\0" * 6, "1" * 10_000):
        assert totp.accept(SECRET, bad, last_step=None, now=NOW) is None
    assert totp.accept(totp.new_secret(), code, last_step=None, now=NOW) is None


def test_the_address_for_the_qr_code_says_all_that_an_app_needs():
    secret = totp.new_secret()
    uri = urlsplit(totp.provisioning_uri(secret, issuer="Acme: Shops & Co", account="a+b@x.org"))
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert unquote(uri.path) == "/Acme  Shops & Co:a+b@x.org"
    assert parse_qs(uri.query) == {
        "secret": [totp.written(secret)], "issuer": ["Acme  Shops & Co"],
        "algorithm": ["SHA1"], "digits": ["6"], "period": ["30"],
    }  # fmt: skip
    assert "+" not in uri.query  # some apps show it
    assert "=" not in totp.written(secret)


def test_secrets_are_long_and_differ():
    made = {totp.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {20}


def test_a_recovery_code_is_known_however_it_is_typed():
    codes = totp.new_recovery_codes()
    assert len(set(codes)) == 10
    stored = [digest for code in codes if (digest := totp.recovery_digest(code))]
    assert len(stored) == 10
    for code in codes:
        for typed in (code, code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} "):
            assert totp.is_recovery_code(typed, stored)
        assert not totp.is_recovery_code(
            code, [other for other in stored if other != totp.recovery_digest(code)]
        )
    assert totp.recovery_digest("O0iL-1111-1111-1111") == totp.recovery_digest(
        "0011-1111-1111-1111"
    )


@pytest.mark.parametrize("bad", ["", "123456", "UUUU-1111-1111-1111", "1" * 15, "1" * 17, "é" * 16])
def test_what_is_no_recovery_code_has_no_digest(bad: str):
    assert totp.recovery_digest(bad) is None
    assert not totp.is_recovery_code(bad, [totp.recovery_digest("1" * 16) or b""])
    assert not totp.is_recovery_code(bad, [])

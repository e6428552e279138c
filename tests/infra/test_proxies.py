"""The client's address: from the right, past our proxies only, and never a made-up one."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from sofinance.config import SettingsError, load
from sofinance.infra.proxies import HOP_COUNT_MAX, Proxies, node, plain

PEER = "10.0.0.1"
CLIENT = "203.0.113.7"
TRUSTED = ("10.0.0.1", "10.0.0.2", "2001:db8:1::/48")


def seen(*headers: tuple[str, str], peer: str | None = PEER, trusted: tuple[str, ...] = TRUSTED):
    return Proxies(trusted).read(peer, CIMultiDict(headers))


def chain(value: str, **options: Any) -> str | None:
    return seen(("X-Forwarded-For", value), **options)


def forwarded(value: str, **options: Any) -> str | None:
    return seen(("Forwarded", value), **options)


def test_without_headers_it_is_the_peer():
    assert seen() == PEER
    assert seen(peer="192.0.2.9") == "192.0.2.9"
    assert seen(peer=None) is None


def test_headers_of_a_stranger_are_not_read():
    assert chain(CLIENT, peer="192.0.2.9") == "192.0.2.9"
    assert forwarded(f"for={CLIENT}", peer="192.0.2.9") == "192.0.2.9"
    assert chain(CLIENT, trusted=()) == PEER


def test_headers_are_not_read_when_that_is_off():
    off = Proxies(TRUSTED, is_on=False)
    assert off.read(PEER, CIMultiDict({"X-Forwarded-For": CLIENT})) == PEER


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (CLIENT, CLIENT),
        (f"198.51.100.1, {CLIENT}", CLIENT),  # what the client made up stands left
        (f"127.0.0.1, 10.0.0.1, {CLIENT}", CLIENT),  # also when it names our proxies
        (f"198.51.100.1, {CLIENT}, 10.0.0.2", CLIENT),
        (f"{CLIENT}, 10.0.0.2, 10.0.0.1", CLIENT),
        (f"{CLIENT},\t10.0.0.2 ,, ", CLIENT),
        ("10.0.0.2", "10.0.0.2"),  # one of our own calls
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (f"{CLIENT}:4711", CLIENT),
        ("[2001:db8:9::1]:4711", "2001:db8:9::1"),
        ("[2001:db8:9::1]", "2001:db8:9::1"),
        ("2001:DB8:9:0::1", "2001:db8:9::1"),
        ("2001:db8:9::1, 2001:db8:1::5", "2001:db8:9::1"),
        ("fe80::1%eth0", "fe80::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("junk, " + CLIENT, CLIENT),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(value: str, wanted: str):
    assert chain(value) == wanted


@pytest.mark.parametrize(
    "value",
    [
        "unknown",
        f"{CLIENT}, unknown",
        f"{CLIENT}, 10.0.0.256",
        f"{CLIENT}:",
        f"{CLIENT}:port",
        f"{CLIENT}:1234567",
        "[2001:db8::1",
        "[203.0.113.7]",
        "[2001:db8::1]:x",
        "2001:db8::1]",
        "٢٠٣.0.113.7",
        "1" * 5_000,
        "for=" + CLIENT,
        ",",
    ],
)
def test_what_cannot_be_read_is_the_peer(value: str):
    assert chain(value) == PEER


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};Proto=https;By=10.0.0.1", CLIENT),
        (f"proto=https ; for={CLIENT}", CLIENT),
        (f'for="{CLIENT}:80"', CLIENT),
        ('for="[2001:db8:9::1]:4711";host="a,b;c"', "2001:db8:9::1"),
        (f'for="\\{CLIENT}"', CLIENT),
        (f"for=198.51.100.1, for={CLIENT}, for=10.0.0.2", CLIENT),
        (f'for="_made;up, for=1.2.3.4", for={CLIENT}', CLIENT),
        (f"for=_hidden, for={CLIENT}", CLIENT),
        (f",, for={CLIENT} ,", CLIENT),
    ],
)
def test_forwarded_is_read_from_the_right(value: str, wanted: str):
    assert forwarded(value) == wanted


@pytest.mark.parametrize(
    "value",
    [
        "for=unknown",
        f"for={CLIENT}, for=_hidden",
        f"for={CLIENT}, proto=https",
        f"for={CLIENT};for=10.0.0.2",
        f"for={CLIENT}:80",
        f'for="{CLIENT}',
        f"for = {CLIENT}",
        f"for={CLIENT} proto=https",
        "for=[2001:db8::1]",
        'for="2001:db8::1]"',
        CLIENT,
        ";",
        "for=" + "1" * 5_000,
    ],
)
def test_a_malformed_forwarded_is_the_peer(value: str):
    assert forwarded(value) == PEER


def test_lines_of_one_header_are_one_list():
    assert seen(("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", CLIENT)) == CLIENT
    assert seen(("Forwarded", "for=1.1.1.1"), ("forwarded", f"for={CLIENT}")) == CLIENT


def test_two_headers_that_agree_are_believed_and_two_that_do_not_are_not():
    assert seen(("X-Forwarded-For", CLIENT), ("Forwarded", f"for={CLIENT}")) == CLIENT
    assert seen(("X-Forwarded-For", CLIENT), ("Forwarded", "for=198.51.100.1")) == PEER
    assert seen(("X-Forwarded-For", CLIENT), ("Forwarded", "for=")) == PEER


def test_a_chain_is_read_so_far_and_no_further():
    ours = ", ".join(["10.0.0.2"] * HOP_COUNT_MAX)
    assert chain(f"{CLIENT}, {ours}") == "10.0.0.2"


def test_a_unix_socket_is_trusted_by_name():
    assert chain(CLIENT, peer=None) is None
    assert chain(CLIENT, peer=None, trusted=("unix",)) == CLIENT
    assert chain(f"{CLIENT}, unix", peer="", trusted=("unix",)) is None


def test_the_doubtful_answer_is_known_to_be_a_proxy():
    proxies = Proxies(TRUSTED)
    assert proxies.is_ours(chain("unknown"))
    assert not proxies.is_ours(chain(CLIENT))
    assert not proxies.is_ours(None)


def test_an_address_has_one_spelling():
    assert plain("2001:0DB8::0:1%5") == "2001:db8::1"
    assert plain("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain("192.0.2.01") is None
    assert plain(None) is None
    assert node(" 192.0.2.1:65535 ") == "192.0.2.1"


def test_settings_name_them_and_are_checked():
    environ = {"DATABASE_URL": "postgresql://a@b/c", "JWT_SECRET": "s" * 32}
    settings = load({
        **environ, "TRUST_PROXY_HEADERS": "true",
        "TRUSTED_PROXY_IPS": "10.0.0.1, unix", "TRUSTED_PROXY_CIDRS": "fd00::/8,10.1.0.0/16",
    })  # fmt: skip
    proxies = Proxies.configured(settings)
    for peer in ("10.0.0.1", "fd00::7", "10.1.2.3", None):
        assert proxies.read(peer, CIMultiDict({"X-Forwarded-For": CLIENT})) == CLIENT
    assert proxies.read("10.2.0.1", CIMultiDict({"X-Forwarded-For": CLIENT})) == "10.2.0.1"
    assert Proxies.configured(load(environ)).read(PEER, CIMultiDict()) == PEER
    with pytest.raises(SettingsError, match=r"TRUSTED_PROXY_CIDRS: '10\.0\.0\.0/33' is no address"):
        load({**environ, "TRUSTED_PROXY_CIDRS": "10.0.0.0/33"})

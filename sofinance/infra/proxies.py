"""Whose request it is: the client's address, behind proxies that are trusted, and only those.

Each proxy writes at the right end of `X-Forwarded-For` or `Forwarded` (RFC 7239) who spoke to it;
whatever stands further left was sent along by that one and may be made up. So the list is read
from the right, past the proxies that are ours, to the first address that is not. What cannot be
read, or says two different things, is not guessed at: the answer is then the peer's own address.
Since a client can bring that about, an address that is a proxy's has no client's rights: `is_ours`.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web
    from multidict import MultiMapping

    from sofinance.config import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Hops that are read, and characters: a chain of proxies is short.
HOP_COUNT_MAX = 32
HEADER_LENGTH_MAX = 4_096
# Answers that are remembered, by peer and headers.
ANSWER_COUNT_MAX = 10_000
# What names the peer of a Unix socket among the trusted.
UNIX = "unix"

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
# One parameter of an element of `Forwarded`, and what ends it.
PARAMETER = re.compile(rf'[ \t]*(?:({TOKEN})=({TOKEN}|"(?:[^"\\]|\\.)*"))?[ \t]*(;|,|$)', re.ASCII)
PORT = re.compile(r":[0-9]{1,5}", re.ASCII)


class Proxies:
    """Which peers are ours, and therefore believed."""

    def __init__(self, trusted: Iterable[str], *, is_on: bool = True) -> None:
        names = {name.strip() for name in trusted} - {""}
        self._is_on = is_on
        self._trusts_unix = UNIX in names
        self._networks = tuple(network(name) for name in sorted(names - {UNIX}))
        self._find = lru_cache(ANSWER_COUNT_MAX)(self._walk)

    @classmethod
    def configured(cls, settings: Settings) -> Proxies:
        """Return the proxies that the settings name."""
        trusted = f"{settings.trusted_proxy_ips},{settings.trusted_proxy_cidrs}"
        return cls(trusted.split(","), is_on=settings.trust_proxy_headers)

    def address(self, request: web.BaseRequest) -> str | None:
        """Return the client's address; None when it has none, as behind a Unix socket."""
        return self.read(request.remote, request.headers)

    def read(self, peer: str | None, headers: MultiMapping[str]) -> str | None:
        """Return the client's address, from who spoke to us and what it said."""
        if not self._is_on:
            return plain(peer)
        forwarded, chain = headers.getall("Forwarded", ()), headers.getall("X-Forwarded-For", ())
        if not forwarded and not chain:
            return plain(peer)
        return self._find(peer, ",".join(forwarded), ",".join(chain))

    def is_ours(self, ip: str | None) -> bool:
        """Say whether an address is a trusted proxy's: not one to give a client's rights to."""
        if ip is None:
            return self._trusts_unix
        address = ipaddress.ip_address(ip)
        return any(address in known for known in self._networks)

    def _walk(self, peer: str | None, forwarded: str, chain: str) -> str | None:
        nearest = plain(peer)
        if not self.is_ours(nearest):
            return nearest
        told = []
        if forwarded:
            told.append(self._outermost(nearest, forwarded_hops(forwarded)))
        if chain:
            told.append(self._outermost(nearest, chain_hops(chain)))
        # Two headers that name two clients: one of them was not written by our proxies.
        return told[0] if len(set(told)) == 1 else nearest

    def _outermost(self, peer: str | None, hops: list[str | None] | None) -> str | None:
        """Return the first address from the right that is not ours, else the last that is."""
        found = peer
        for hop in reversed((hops or [])[-HOP_COUNT_MAX:]):
            if hop is None:  # "unknown", or something that is no address
                return peer
            found = hop
            if not self.is_ours(hop):
                break
        return found


def network(text: str) -> Network:
    """Return a network or a single address; raises ValueError for anything else."""
    return ipaddress.ip_network(text, strict=False)


@lru_cache(ANSWER_COUNT_MAX)
def plain(text: str | None) -> str | None:
    """Return an address in its one spelling, without a zone; None for what is none.

    PostgreSQL's inet knows no zones, and an IPv4 address in IPv6's clothes is the IPv4 address.
    """
    try:
        address = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def node(text: str) -> str | None:
    """Read an address with or without a port: `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1`."""
    text = text.strip()
    if text.startswith("["):
        inside, closed, port = text[1:].partition("]")
        is_good = bool(closed) and ":" in inside and (not port or PORT.fullmatch(port))
        return plain(inside) if is_good else None
    if text.count(":") == 1:
        text, _, port = text.partition(":")
        if not PORT.fullmatch(f":{port}"):
            return None
    return plain(text)


def chain_hops(header: str) -> list[str | None] | None:
    """Read X-Forwarded-For, from the client to the nearest proxy; None if it is too long."""
    if len(header) > HEADER_LENGTH_MAX:
        return None
    return [node(part) for part in header.split(",") if part.strip()]


def forwarded_hops(header: str) -> list[str | None] | None:
    """Read the `for` of each element of Forwarded; None when it does not follow RFC 7239.

    An element without `for`, and an obfuscated or unknown one, is a hop without an address.
    """
    if len(header) > HEADER_LENGTH_MAX:
        return None
    hops: list[str | None] = []
    at, found, names = 0, None, set[str]()
    while True:
        match = PARAMETER.match(header, at)
        if match is None:
            return None
        name, value, end = match.groups()
        if name is not None:
            name = name.lower()
            if name in names:  # given twice: whose word is it?
                return None
            names.add(name)
            if name == "for":
                found = value
        if end != ";" and names:
            hops.append(None if found is None else _forwarded_node(found))
            found, names = None, set()
        if match.end() == len(header) and end != ",":
            return hops
        at = match.end()


def _forwarded_node(value: str) -> str | None:
    if value.startswith('"'):
        return node(re.sub(r"\\(.)", r"\1", value[1:-1]))
    # Unquoted there is no room for a colon, so neither for a port nor for IPv6.
    return node(value)

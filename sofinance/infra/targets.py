"""Where we may send what tenants tell us to: never into our own network.

A URL is looked at when it is given and again before each message. The address is looked at where
it counts: in the resolver of the connector, which connects to exactly the addresses that it
returns. So a name that answers with another address a moment later gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from sofinance.infra.errors import ApiError
from sofinance.infra.proxies import network

if TYPE_CHECKING:
    from sofinance.config import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_LENGTH_MAX = 2_000
# Addresses in which another is hidden, that a gateway would take out again. Sources: RFC 6052
# (NAT64), RFC 8215 (local NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 4291 (compatible).
HIDING = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
# All that is given out for the public internet (RFC 4291). Python takes fec0::/10 for public, too.
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")


class TargetRefusedError(Exception):
    """We do not send there; the text is a code: scheme, credentials, host, port, address..."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the settings say of where we may send."""

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    allows_http: bool = False

    @classmethod
    def configured(cls, settings: Settings) -> Targets:
        """Return what the settings say."""
        return cls(
            hosts=split(settings.export_allowed_hosts.lower()),
            networks=tuple(network(name) for name in split(settings.export_allowed_networks)),
            allows_http=settings.export_allow_http,
        )

    def refusal(self, url: str) -> str | None:
        """Say why nothing is sent to a URL: a code; None for what can be seen of a good one."""
        try:
            self.check_url(url)
        except TargetRefusedError as error:
            return str(error)
        return None

    def check_url(self, url: str) -> None:
        """Refuse a URL for what can be seen of it; raises TargetRefusedError."""
        if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url:
            raise TargetRefusedError("form")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise TargetRefusedError("form") from None
        if parts.scheme != "https" and not (self.allows_http and parts.scheme == "http"):
            raise TargetRefusedError("scheme")
        if "@" in parts.netloc or "\\" in url:
            raise TargetRefusedError("credentials")
        if not host or port == 0 or parts.fragment:
            raise TargetRefusedError("form")
        if self.hosts and not any(is_named(host, name) for name in self.hosts):
            raise TargetRefusedError("host")
        if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
            host = "127.0.0.1"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # 127.1 and 2130706433 are addresses to a system, and to aiohttp, which would not ask
            # the resolver. Any other name's addresses are looked at when it is connected to.
            if ":" in host or host.replace(".", "").isdigit():
                raise TargetRefusedError("address") from None
            return
        self.check_address(address)

    def check_address(self, address: Address) -> None:
        """Refuse an address that is not of the public internet; raises TargetRefusedError."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in allowed for allowed in self.networks):
            return
        hidden = any(address in hiding for hiding in HIDING) or (
            isinstance(address, ipaddress.IPv6Address) and address not in PUBLIC_IPV6
        )
        # is_global is false for private, loopback, link-local, shared (CGNAT) and reserved ones.
        if not address.is_global or address.is_multicast or address.is_reserved or hidden:
            raise TargetRefusedError("address")


def check_target(settings: Settings, url: str) -> None:
    """Refuse a URL that nothing is ever sent to: invalid_export_target (400)."""
    error = target_refusal(settings, url)
    if error is not None:
        raise error


def target_refusal(settings: Settings, url: str) -> ApiError | None:
    """Return the refusal of a URL that nothing is ever sent to: invalid_export_target (400)."""
    reason = Targets.configured(settings).refusal(url)
    if reason is None:
        return None
    return ApiError(
        "invalid_export_target",
        "Nothing is sent there. It must be https:// on a public host that is allowed.",
        status=400,
        reason=reason,
    )


class CheckedResolver(AbstractResolver):
    """Resolves names to addresses that we may send to, and to no others.

    One refused address refuses the name: who mixes both means no good, or does not know.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name; raises TargetRefusedError, or OSError for none."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family
        )
        results = []
        for kind, _, protocol, _, where in found:
            address, number = str(where[0]), int(where[1])
            self._targets.check_address(ipaddress.ip_address(address.partition("%")[0]))
            results.append(
                ResolveResult(
                    hostname=host, host=address, port=number, family=kind, proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )  # fmt: skip
        return results

    async def close(self) -> None:
        """Nothing is held."""


def is_named(host: str, name: str) -> bool:
    """Say whether a host is the one of the list: hooks.example.com, or *.example.com."""
    if name.startswith("*."):
        return host.endswith(name[1:]) and len(host) > len(name) - 1
    return host.rstrip(".") == name


def split(text: str) -> tuple[str, ...]:
    """Return the parts of a list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())

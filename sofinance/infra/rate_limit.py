"""How much anybody may ask: one call to Redis a request, and an answer without Redis too.

Workers share their buckets in Redis (rate_limit.lua). When Redis is slow, down or refuses, the
circuit opens: each worker counts by itself, at once and without waiting, until Redis is back.
Nothing else depends on Redis, so that its loss costs nobody anything but the sharing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

from redis.exceptions import NoScriptError, ResponseError

from sofinance.infra import metrics
from sofinance.infra.buckets import Buckets, Charge, Policy
from sofinance.infra.errors import ApiError
from sofinance.infra.redis_line import LineBrokenError, RedisLine, RedisLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sofinance.config import Settings

log = logging.getLogger(__name__)

# What has a limit of its own, beside those that every request has.
Kind = Literal["sign_in", "report"]
SCRIPT = resources.files("sofinance.infra").joinpath("rate_limit.lua").read_text("utf-8")
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
# An IPv6 customer is given a /64: its addresses are one client's.
IPV6_PREFIX_LENGTH = 64
ADDRESS_COUNT_MAX = 10_000
SECOND_US = 1_000_000
NO_HEADERS: Mapping[str, str] = {}
REDIS, MEMORY = "redis", "memory"
PROBE_KEYS, PROBE_ARGUMENTS = ("{sf:probe}",), (SECOND_US, SECOND_US, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The policies of a kind of request, and what can be worked out of them beforehand."""

    policies: tuple[Policy, ...]
    arguments: tuple[int, ...]
    header: str
    is_strict: bool

    @classmethod
    def of(cls, *policies: Policy) -> Plan:
        """Return the plan that charges one token under each policy."""
        return cls(
            policies,
            tuple(number for p in policies for number in (p.interval_us, p.size, 1)),
            ", ".join(f'"{p.name}";q={p.size};w={_seconds(p.room_us)}' for p in policies),
            any(p.is_strict for p in policies),
        )


class Limiter:
    """The limits of one process, shared with all others as long as Redis answers."""

    def __init__(self, settings: Settings, *, buckets: Buckets | None = None) -> None:
        self.is_enabled = settings.rate_limit_enabled
        per_minute, size = settings.rate_limit_per_minute, settings.rate_limit_burst
        classes: dict[Kind, Policy] = {
            "sign_in": Policy.per_minute(
                "sign_in",
                settings.rate_limit_sign_in_per_minute,
                settings.rate_limit_sign_in_burst,
                is_strict=True,
            ),
            "report": Policy.per_minute(
                "report", settings.rate_limit_report_per_minute, settings.rate_limit_report_burst
            ),
        }
        address = Policy.per_minute("address", per_minute, size)
        user = Policy.per_minute("user", per_minute, size)
        organisation = Policy.per_minute(
            "organisation", settings.rate_limit_org_per_minute, settings.rate_limit_org_burst
        )
        extra: dict[Kind | None, tuple[Policy, ...]] = {None: ()}
        extra |= {name: (policy,) for name, policy in classes.items()}
        self._address_plans = {name: Plan.of(address, *more) for name, more in extra.items()}
        self._caller_plans = {
            name: Plan.of(user, organisation, *more) for name, more in extra.items()
        }
        # Apart, so that a flood of addresses pushes out nobody's failed sign-ins.
        self._buckets = buckets or Buckets()
        self._strict_buckets = Buckets()
        self._link: RedisLink | None = None
        if settings.redis_url:
            self._link = RedisLink(
                settings.redis_url,
                timeout_s=settings.redis_timeout_ms / 1000,
                greet=greet,
                tell=self._tell,
            )

    async def open(self) -> None:
        """Connect to Redis, if there is one; without it this works all the same."""
        if self._link is not None:
            await self._link.open()

    async def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            await self._link.close()

    @property
    def is_shared(self) -> bool:
        """Whether workers count together right now."""
        return self._link is not None and self._link.line is not None

    async def probe(self) -> bool:
        """Say whether Redis answers right now."""
        return await self._ask(PROBE_KEYS, PROBE_ARGUMENTS) is not None

    async def admit_caller(
        self, org_id: int, subject: str, kind: Kind | None = None
    ) -> Mapping[str, str]:
        """Charge a request to who makes it ("user:7", "key:3", "till:2") and to the organisation.

        Returns the headers of the answer. Raises rate_limited (429), and then charges nothing.
        """
        if not self.is_enabled:
            return NO_HEADERS
        tag = f"{{sf:{org_id}}}:"
        keys = [f"{tag}{subject}", f"{tag}org"]
        if kind is not None:
            keys.append(f"{tag}{kind}:{subject}")
        return await self._admit(keys, self._caller_plans[kind])

    async def admit_address(self, ip: str | None, kind: Kind | None = None) -> Mapping[str, str]:
        """Charge a request of nobody we know to where it comes from; otherwise the same."""
        if not self.is_enabled:
            return NO_HEADERS
        tag = f"{{sf:ip:{network_of(ip)}}}:"
        keys = [f"{tag}address"] if kind is None else [f"{tag}address", f"{tag}{kind}"]
        return await self._admit(keys, self._address_plans[kind])

    async def take(self, charges: Sequence[Charge]) -> tuple[bool, list[int]]:
        """Take from every bucket or from none; returns whether it did, and their debts after.

        For limits of one's own, beside those of requests. The keys share one hash tag.
        """
        arguments = [n for c in charges for n in (c.policy.interval_us, c.policy.size, c.cost)]
        reply = await self._ask([charge.key for charge in charges], arguments)
        strict = [charge for charge in charges if charge.policy.is_strict]
        if reply is None:
            return (self._strict_buckets if strict else self._buckets).take(charges)
        if strict and reply[0]:
            self._strict_buckets.take(strict)
        return bool(reply[0]), reply[1:]

    async def _admit(self, keys: Sequence[str], plan: Plan) -> Mapping[str, str]:
        reply = await self._ask(keys, plan.arguments)
        backend = REDIS
        if reply is None:
            backend, buckets = MEMORY, self._strict_buckets if plan.is_strict else self._buckets
            is_allowed, debts_us = buckets.take(_charges(keys, plan))
        else:
            is_allowed, debts_us = bool(reply[0]), reply[1:]
            if plan.is_strict and is_allowed:
                # Should Redis go away, this worker knows what it has let pass: a sign-in
                # limit does not begin anew.
                self._strict_buckets.take([c for c in _charges(keys, plan) if c.policy.is_strict])
        if is_allowed:
            metrics.count_admission(plan.policies[-1].name, backend, "allowed")
            return {"RateLimit-Policy": plan.header, "RateLimit": tightest(plan, debts_us)}
        raise self._refusal(plan, debts_us, backend)

    def _refusal(self, plan: Plan, debts_us: Sequence[int], backend: str) -> ApiError:
        violated = [
            (policy, debt_us)
            for policy, debt_us in zip(plan.policies, debts_us, strict=True)
            if policy.wait_us(debt_us)
        ]
        for policy, _ in violated:
            metrics.count_admission(policy.name, backend, "refused")
        return refusal(violated, policy_header=plan.header)

    async def _ask(self, keys: Sequence[str], arguments: Sequence[int]) -> list[int] | None:
        """Run the script; None means that there is no Redis to ask, or that it does not answer."""
        link = self._link
        if link is None:
            return None
        line = link.line
        if line is not None:
            try:
                return await run_script(line, keys, arguments)
            except LineBrokenError:
                pass  # counted below; the link tells why, once
            except ResponseError as error:
                line.cut(f"it refuses: {error}")
        metrics.RATE_LIMIT_FALLBACKS.inc()
        return None

    def _tell(self, why: str | None) -> None:
        """Note that Redis is there, or why it is not."""
        metrics.RATE_LIMIT_CIRCUIT_OPEN.set(0 if why is None else 1)
        metrics.CIRCUIT_STATE.labels("redis").set(0 if why is None else 1)
        if why is None:
            log.info("rate limits are shared through Redis")
        else:
            log.warning(
                "rate limits are counted in this process: no Redis",
                extra={"metadata": {"why": why}},
            )


async def run_script(line: RedisLine, keys: Sequence[str], arguments: Sequence[int]) -> list[int]:
    """Run rate_limit.lua; it is sent whole if the server does not have it (any more)."""
    count = len(keys)
    try:
        reply = await line.ask("EVALSHA", SCRIPT_SHA, count, *keys, *arguments)
    except NoScriptError:
        reply = await line.ask("EVAL", SCRIPT, count, *keys, *arguments)
    answer: list[int] = reply
    return answer


async def greet(line: RedisLine) -> None:
    """See whether a server would do what requests ask of it: run the script, and write."""
    await run_script(line, PROBE_KEYS, PROBE_ARGUMENTS)


def refusal(
    violated: Sequence[tuple[Policy, int]], *, policy_header: str | None = None
) -> ApiError:
    """Make the rate_limited (429) of buckets that have no token left, from their debts."""
    names = [policy.name for policy, _ in violated]
    waits_s = [_seconds(policy.wait_us(debt_us)) for policy, debt_us in violated]
    retry_after_s = max(1, *waits_s)
    states = zip(names, violated, strict=True)
    headers = {
        "Retry-After": str(retry_after_s),
        "RateLimit": ", ".join(f'"{name}";r=0;t={_seconds(debt)}' for name, (_, debt) in states),
    }
    if policy_header is not None:
        headers["RateLimit-Policy"] = policy_header
    return ApiError(
        "rate_limited",
        "Too many requests; send it again after the time that Retry-After says.",
        status=429,
        headers=headers,
        violated_policies=names,
        retry_after_s=retry_after_s,
    )


def tightest(plan: Plan, debts_us: Sequence[int]) -> str:
    """Write the RateLimit header: of several limits, the one with the fewest requests left."""
    name, left, debt_us = "", -1, 0
    for policy, policy_debt_us in zip(plan.policies, debts_us, strict=True):
        policy_left = policy.left(policy_debt_us)
        if left < 0 or policy_left < left:
            name, left, debt_us = policy.name, policy_left, policy_debt_us
    return f'"{name}";r={left};t={_seconds(debt_us)}'


@lru_cache(ADDRESS_COUNT_MAX)
def network_of(ip: str | None) -> str:
    """Return what is counted as one client: an IPv4 address, an IPv6 /64, or "none"."""
    if ip is None:
        return "none"
    address = ipaddress.ip_address(ip)
    if address.version == 4:
        return ip
    return str(ipaddress.ip_network((int(address), IPV6_PREFIX_LENGTH), strict=False))


def _charges(keys: Sequence[str], plan: Plan) -> list[Charge]:
    return [Charge(key, policy) for key, policy in zip(keys, plan.policies, strict=True)]


def _seconds(us: int) -> int:
    """Return whole seconds, rounded up: what is early is refused again."""
    return -(-us // SECOND_US)

"""Guesses at a secret: few per account and address, more per account, more per address.

An attempt is charged before the secret is looked at, so that guesses made at once count too; a
success gives it back. Accounts are counted by the hash of the name that was typed, whether there
is such an account or not: being refused says nothing about that.

Nobody is locked out for ever, or by others: every bucket fills again by itself, and whoever has
signed in from an address before is held there to that address's own limits only, however many
guesses come from elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sofinance.infra import metrics
from sofinance.infra.buckets import Charge, Policy
from sofinance.infra.rate_limit import network_of, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sofinance.infra.errors import ApiError
    from sofinance.infra.rate_limit import Limiter

# One tag for all: an account is tried from many addresses, an address tries many accounts.
TAG = "{sf:secrets}:"
DAY_US = 86_400_000_000
# Ten wrong tries in a row, then one a minute.
ACCOUNT_AND_ADDRESS = Policy.per_minute("account_and_address", 1, 10, is_strict=True)
# From all addresses together; a guesser with a thousand of them has 7,000 tries a day.
ACCOUNT = Policy.per_minute("account", 5, 50, is_strict=True)
# A branch behind one address: what succeeds is given back, so these are failures only.
ADDRESS = Policy.per_minute("address_failures", 10, 100, is_strict=True)
# A code has a million values, and three are good at a time: ten tries, then twelve an hour.
CODES = Policy.per_hour("codes", 12, 10, is_strict=True)
# A PIN has ten thousand, is asked for at a till only, and dies after twenty wrong tries.
PINS = Policy.per_hour("pins", 30, 10, is_strict=True)
# Not a limit but a memory: this account has signed in from this address.
FAMILIAR = Policy("familiar", 30 * DAY_US, 1, is_strict=True)


# Mails that one address asks us to send to whomever it names.
MAILS = Policy.per_minute("mails_asked_for", 1, 10, is_strict=True)


# Mails to one address that nobody has an account with, whoever asks for them.
MAILS_TO = Policy("mails_to", DAY_US // 6, 3, is_strict=True)


# Links to the portal that are asked for one mail address; of them the database sends three.
LINKS_TO = Policy.per_hour("portal_links_to", 12, 10, is_strict=True)


async def mail_asked_for(
    limiter: Limiter, ip: str | None, *, to: str | None = None, everywhere: Policy = MAILS_TO
) -> None:
    """Charge a mail to the address that asks for it; raises rate_limited (429).

    Whether there is anybody to write to makes no difference. How many one person is sent is
    for the database to limit, or, where strangers are written to, for `to`, their mail address:
    `everywhere` is what may be asked for it from all addresses together.
    """
    charges = [Charge(f"{TAG}mails:{network_of(ip)}", MAILS)]
    if to is not None:
        charges.append(Charge(f"{TAG}to:{_name_of(to)}", everywhere))
    if not limiter.is_enabled:
        return
    is_allowed, debts_us = await limiter.take(charges)
    if not is_allowed:
        raise _refused(charges, debts_us)


def _refused(charges: Sequence[Charge], debts_us: Sequence[int]) -> ApiError:
    """Count and make the rate_limited (429) of buckets that have no token left."""
    violated = [
        (charge.policy, debt_us)
        for charge, debt_us in zip(charges, debts_us, strict=True)
        if charge.policy.wait_us(debt_us)
    ]
    for policy, _ in violated:
        metrics.count_admission(policy.name, "throttle", "refused")
    return refusal(violated)


def _name_of(account: str) -> str:
    """Return what stands for an account in keys: no address is read from them."""
    return hashlib.sha256(account.strip().casefold().encode("utf-8", "replace")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A guess that may be made."""

    limiter: Limiter
    charges: tuple[Charge, ...]
    familiar: Charge

    async def succeeded(self) -> None:
        """Give back what it cost, clear the account here, and remember that it belongs here."""
        if self.charges:
            pair, *others = self.charges
            back = [Charge(c.key, c.policy, -c.cost) for c in others]
            await self.limiter.take([Charge(pair.key, pair.policy, -pair.policy.size), *back])
            await self.limiter.take([self.familiar])


async def attempt(
    limiter: Limiter, account: str, ip: str | None, *, everywhere: Policy = ACCOUNT
) -> Attempt:
    """Charge a guess at an account's secret; raises rate_limited (429), whoever it is.

    `account` is what was typed, or any other name of what is guessed at, such as "pin:<till>";
    `everywhere` is what may be tried at it from all addresses together.
    A guess that turns out right is told by `succeeded`; one that is wrong needs nothing more.
    """
    name = _name_of(account)
    place = network_of(ip)
    pair = Charge(f"{TAG}pair:{name}:{place}", ACCOUNT_AND_ADDRESS)
    account_wide = Charge(f"{TAG}account:{name}", everywhere)
    here = Charge(f"{TAG}address:{place}", ADDRESS)
    familiar = Charge(f"{TAG}familiar:{name}:{place}", FAMILIAR)
    if not limiter.is_enabled:
        return Attempt(limiter, (), familiar)
    charges: tuple[Charge, ...] = (pair, account_wide, here)
    look = Charge(familiar.key, FAMILIAR, cost=0)
    is_allowed, (*debts_us, familiar_us) = await limiter.take([*charges, look])
    if not is_allowed and familiar_us and everywhere.wait_us(debts_us[1]):
        charges = (pair, here)
        is_allowed, debts_us = await limiter.take(charges)
    if is_allowed:
        return Attempt(limiter, charges, familiar)
    raise _refused(charges, debts_us)

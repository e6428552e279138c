"""django-hordak posting two-line entries: run by the Python of an environment of its own.

``python hordak_client.py migrate URL`` makes its tables by its own migrations and two accounts;
``python hordak_client.py post URL SECONDS`` posts for a while and prints how many. It imports
nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from urllib.parse import unquote, urlsplit


def main(verb: str, url: str, seconds: str = "0") -> None:
    """Migrate, or post."""
    import django  # type: ignore[import-not-found]  # noqa: PLC0415 - installed only in the rival's environment
    from django.conf import settings  # type: ignore[import-not-found]  # noqa: PLC0415 - the same

    parts = urlsplit(url)
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "mptt", "hordak"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts.path.strip("/"),
                "USER": parts.username,
                "PASSWORD": unquote(parts.password or ""),
                "HOST": parts.hostname,
                "PORT": parts.port,
                "CONN_MAX_AGE": None,
            }
        },
        DEFAULT_CURRENCY="EUR",
        CURRENCIES=["EUR"],
        USE_TZ=True,
    )
    django.setup()
    if verb == "migrate":
        migrate()
    else:
        print(json.dumps({"count": post(float(seconds))}))


def migrate() -> None:
    """Make the tables and two accounts."""
    from django.core.management import call_command  # type: ignore[import-not-found]  # noqa: PLC0415 - needs setup() before
    from hordak.models import Account  # type: ignore[import-not-found]  # noqa: PLC0415 - the same

    call_command("migrate", verbosity=0, interactive=False)
    for code, (name, kind) in enumerate((("Cash", "AS"), ("Bank", "AS")), 1):
        Account.objects.create(name=name, type=kind, code=str(code), currencies=["EUR"])


def post(seconds: float) -> int:
    """Post transfers between the two accounts, each in a transaction, by hordak's own call."""
    from django.db import transaction  # type: ignore[import-not-found]  # noqa: PLC0415 - needs setup() before
    from hordak.models import Account  # noqa: PLC0415 - the same
    from moneyed import Money  # type: ignore[import-not-found]  # noqa: PLC0415 - the same

    cash, bank = Account.objects.order_by("code")
    amount = Money("12.34", "EUR")

    def transfer() -> None:
        with transaction.atomic():
            cash.transfer_to(bank, amount)

    transfer()  # connects
    until_s, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < until_s:
        transfer()
        count += 1
    return count


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What the endpoints of one application share: the database and all that is made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.administration import Administration
from sofinance.infra.caches import Caches
from sofinance.infra.captcha import Captcha
from sofinance.infra.db import Database, opening
from sofinance.infra.envelope import Envelope
from sofinance.infra.flags import Flags
from sofinance.infra.guard import Guard
from sofinance.infra.hub import Hub
from sofinance.infra.mail import Mailer
from sofinance.infra.proxies import Proxies, plain
from sofinance.infra.rate_limit import Limiter
from sofinance.infra.secretbox import SecretBox
from sofinance.infra.storage import open_storage
from sofinance.infra.stripe import Stripe

if TYPE_CHECKING:
    from sofinance.config import Settings


class Machine:
    """What the endpoints of one application share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.db = Database(settings)
        self.envelope = Envelope.configured(settings)
        self.guard = Guard(settings, self.db)
        self.limiter = Limiter(settings)
        self.mailer = Mailer.configured(settings)
        self.captcha = Captcha.configured(settings)
        self.secret_box = SecretBox.configured(settings)
        self.stripe = Stripe(settings)
        self.storage = open_storage(settings)
        self.flags = Flags(self.db)
        self.hub = Hub(settings, self.db, self.guard)
        self.proxies = Proxies.configured(settings)
        self.administration = Administration(settings, self.proxies)
        self.vocabulary: dict[str, str] = {}
        self.permissions: frozenset[str] = frozenset()
        self.draining = self.leaving = False  # not ready; each answer closes its connection
        self.under_way_count = 0  # requests
        self.caches = Caches()
        self.caches.add("credentials", lambda: self.guard)
        self.caches.add("openings", opening.cache_info)
        self.caches.add("flags", lambda: self.flags)
        self.caches.add("addresses", plain.cache_info)

    async def learn(self) -> None:
        """Load what the database knows and every request needs: rules' messages, permissions."""
        async with self.db.untenanted(at_start=True) as conn:
            rules = await q.request.list_vocabulary(conn)
            permissions = await q.auth.list_permissions(conn)
        self.permissions = frozenset(permission.name for permission in permissions)
        self.vocabulary = {rule.code: rule.message for rule in rules}

"""What slices use: `Routes.endpoint` declares all of a route, `Call` is all a handler may know.

What happens around a handler is in route.py, what happens around every request in middleware.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sofinance.infra.db import Database, Mode
from sofinance.infra.fields import PageQuery

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from marshmallow import Schema

    from sofinance.config import Settings
    from sofinance.infra.captcha import Captcha
    from sofinance.infra.deprecation import Deprecation
    from sofinance.infra.etag import IfMatch
    from sofinance.infra.flags import Flags
    from sofinance.infra.guard import Guard, Principal
    from sofinance.infra.mail import Mailer
    from sofinance.infra.parse import Received
    from sofinance.infra.rate_limit import Kind, Limiter
    from sofinance.infra.secretbox import SecretBox
    from sofinance.infra.sql import Connection
    from sofinance.infra.storage import Storage
    from sofinance.infra.stripe import Stripe
    from sofinance.infra.upload import Upload

PREFIX = "/api/v1"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"

# True: whatever one has to do first; second_factor: not before the password is one's own.
GateFree = Literal[True, False, "second_factor"]
# required: the request must carry an Idempotency-Key, whatever the settings say.
Idempotent = Literal[True, False, "required"]
Handler = Callable[["Call"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request: all that a handler may know.

    `branch_id` is the branch that X-Branch-Id names, else the only one that the caller has. In a
    public endpoint there is no caller (org_id and user_id are 0) and no transaction; it opens its
    own with ``call.tenant(org_id)`` or ``call.untenanted()``. An endpoint with own_transactions
    opens them with ``call.transaction()``.
    """

    principal: Principal
    org_id: int
    user_id: int
    branch_id: int | None
    body: dict[str, Any]
    query: dict[str, Any]
    path: dict[str, Any]
    request_id: str
    now: datetime
    ip: str | None
    user_agent: str
    authorization: str | None
    accept: str
    db: Database
    guard: Guard
    limiter: Limiter
    mailer: Mailer
    captcha: Captcha
    secret_box: SecretBox
    flags: Flags
    storage: Storage
    stripe: Stripe
    settings: Settings
    draining: bool
    notes: dict[str, Any]
    _upload: Upload | None
    _received: Received | None
    _conn: Connection | None

    @property
    def conn(self) -> Connection:
        """The connection of this request's transaction."""
        if self._conn is None:
            raise RuntimeError("this endpoint opens its own transactions: call.tenant(org_id)")
        return self._conn

    @property
    def upload(self) -> Upload:
        """The file that is sent to an endpoint with upload=True."""
        if self._upload is None:
            raise RuntimeError("this endpoint takes no file: upload=True")
        return self._upload

    @property
    def received(self) -> Received:
        """What is sent to an endpoint with receives=True, byte for byte."""
        if self._received is None:
            raise RuntimeError("this endpoint takes no signed body: receives=True")
        return self._received

    @property
    def role(self) -> str:
        """The caller's role."""
        return self.principal.role

    @property
    def permissions(self) -> frozenset[str]:
        """What the caller may do."""
        return self.principal.permissions

    @property
    def limit(self) -> int:
        """The rows of the page that is asked for."""
        return int(self.query["size"])

    @property
    def offset(self) -> int:
        """The rows before the page that is asked for."""
        return int((self.query["page"] - 1) * self.query["size"])

    def allows(self, permission: str) -> bool:
        """Say whether the caller may do something beyond what the endpoint asks for."""
        return self.principal.allows(permission)

    async def flag(self, name: str) -> bool:
        """Say whether a flag (sofinance/flags.py) is on for the caller, in the call's branch."""
        return await self.flags.is_on(
            name, org_id=self.org_id, branch_id=self.branch_id, user_id=self.user_id or None,
            conn=self._conn,
        )  # fmt: skip

    def before(self, obj: Any) -> None:
        """Give the audit row what the thing was like before this request."""
        self.notes["before"] = obj

    def audit(self, *, entity_id: int | None = None, severity: str | None = None) -> None:
        """Name the thing in the audit row, where neither the answer nor the path has its id.

        `severity` is INFO unless it is given: WARNING, ERROR or CRITICAL.
        """
        if entity_id is not None:
            self.notes["entity_id"] = entity_id
        if severity is not None:
            self.notes["severity"] = severity

    def transaction(self, *, mode: Mode = Mode.WRITE) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction as the caller; for endpoints with own_transactions.

        The database confirms first that the caller may still do what the worker remembers.
        """
        return self.db.admitted(self.principal.scope, mode=mode)

    def tenant(
        self, org_id: int, *, user_id: int | None = None, mode: Mode = Mode.WRITE
    ) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction that sees one organisation's rows; for public endpoints."""
        return self.db.tenant(org_id, user_id=user_id, mode=mode)

    def untenanted(self, *, mode: Mode = Mode.READ) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction that sees no organisation's rows; for public endpoints."""
        return self.db.untenanted(mode=mode)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a handler returns that lets its caller go on over a WebSocket (hub.py)."""

    ticket: str | None
    last_id: int | None


@dataclass(frozen=True, slots=True)
class Paged:
    """The answer of a paged endpoint: its handler returns (rows, total)."""

    schema: Schema


def paged(schema: Schema) -> Paged:
    """Answer {items, pagination}; the handler returns (rows, total)."""
    return Paged(schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """All that is declared about a route."""

    method: str
    path: str
    handler: Handler
    permission: str | None
    public: bool
    org_wide: bool
    admin: bool
    in_read_only: bool
    gate_free: GateFree
    own_transactions: bool
    oauth: bool
    upload: bool
    receives: bool
    body: Schema | None
    query: Schema | None
    returns: Schema | Paged | None
    status: int
    message: str
    location: str | None
    mode: Mode
    replica: bool
    idempotent: Idempotent
    if_match: IfMatch | None
    deprecated: Deprecation | None
    entity: str
    limit: Kind | None
    refuses: tuple[int, ...]
    media_type: str | None
    credential: str | None

    @property
    def is_limited(self) -> bool:
        """Whether requests are counted: all but those of probes, and of who signs what they send.

        Who signs comes from few addresses; the handler limits whoever cannot.
        """
        is_counted = (self.path.startswith(PREFIX) or not self.public) and not self.receives
        return self.limit is not None or is_counted

    @property
    def body_type(self) -> str:
        """How its body is written."""
        return FORM if self.oauth else JSON

    @property
    def tag(self) -> str:
        """The slice that it belongs to."""
        return self.handler.__module__.rpartition(".")[2]

    @property
    def name(self) -> str:
        """The slice and the handler: what the audit row calls the action."""
        return f"{self.tag}.{getattr(self.handler, '__name__', '')}"


class Routes(list[Endpoint]):
    """The endpoints of a slice."""

    def endpoint(  # noqa: C901, PLR0913 - the one place where all of a route is declared
        self,
        method: str,
        path: str,
        *,
        permission: str | None = None,
        public: bool = False,
        any_user: bool = False,
        org_wide: bool = False,
        admin: bool = False,
        in_read_only: bool = False,
        gate_free: GateFree = False,
        own_transactions: bool = False,
        oauth: bool = False,
        upload: bool = False,
        receives: bool = False,
        body: Schema | None = None,
        query: Schema | None = None,
        returns: Schema | Paged | None = None,
        status: int | None = None,
        message: str | None = None,
        location: str | None = None,
        read: bool = False,
        report: bool = False,
        replica: bool = False,
        idempotent: Idempotent = True,
        if_match: IfMatch | None = None,
        deprecated: Deprecation | None = None,
        entity: str | None = None,
        limit: Kind | None = None,
        refuses: tuple[int, ...] = (),
        media_type: str | None = None,
        credential: str | None = None,
        prefix: bool = True,
    ) -> Callable[[Handler], Handler]:
        """Declare a route.

        `permission`, `any_user=True` (whoever signed in) or `public=True`: who may call. `org_wide`
        asks for all branches as well. `admin` marks administration, which may be bound to addresses
        and read-only (administration.py), but for what is `in_read_only`. `gate_free` lets in who
        has to change the password, or to enrol a second factor, first. `own_transactions` is for
        what waits for something else than the database, a hash say: its handler opens transactions
        itself, so that none is held meanwhile, and writes its own audit rows (audit.py). `oauth`
        takes a form and answers as RFC 6749 wants it, without the envelope. `upload` takes one file
        instead of a body (upload.py). `receives` takes a body as it is, whatever it says that it
        is, from whom its signature names; so its handler limits whoever cannot sign. `limit` is the
        stricter rate limit beside the usual ones. `body`,
        `query`: what goes in, schemas whose unknown fields are errors. `returns`: what comes out;
        None answers 204. `status` is 200, or 204. `location` is a template over the answer's and
        the path's fields. `read` (so is every GET) makes the transaction read-only; `report` lets
        all its queries see one state; `replica` lets a standby answer, if there is one that has
        all that was committed before. `idempotent=False` is for answers that must not be stored,
        such as tokens; "required" demands a key. `if_match` is for what changes one row:
        "optional" takes an If-Match, "required" demands one (428); the handler
        returns the row with its `version`, a DELETE's as
        well. `deprecated` is said on every answer, and its use is counted. `entity` names the kind
        of thing in the audit row (else the slice). `refuses` are statuses that the handler refuses
        with and that do not follow from the rest, for the documents; `media_type` is that of an
        answer that it makes itself. `credential` is what a public endpoint asks for itself, where
        others take a user's, as the documents name it. `prefix=False` mounts at the root, where
        nothing is limited that does not say so.
        """
        where = f"{method} {path}"
        if [permission is not None, public, any_user].count(True) != 1:
            raise TypeError(f"{where}: give one of permission='...', any_user=True, public=True")
        if public and (org_wide or admin or gate_free):
            raise TypeError(f"{where}: a public endpoint asks nothing of its caller")
        if credential is not None and not public:
            raise TypeError(f"{where}: what is not public takes a user's credential")
        if upload and (not own_transactions or body is not None):
            raise TypeError(f"{where}: a file is received while no transaction is open")
        if receives and (not public or body is not None):
            raise TypeError(f"{where}: a signature says who sends it, and what it is")
        if own_transactions and (public or idempotent):
            raise TypeError(f"{where}: whoever opens their own transactions keeps no answers")
        if isinstance(returns, Paged):
            query = query or PageQuery()
            if not isinstance(query, PageQuery):
                raise TypeError(f"{where}: the query of a paged endpoint derives from PageQuery")
        answers_nothing = returns is None and media_type is None
        if answers_nothing and not public and status not in {None, 204}:
            raise TypeError(f"{where}: an endpoint that returns nothing answers 204")
        mode = Mode.REPORT if report else Mode.READ if read or method == "GET" else Mode.WRITE
        if replica and (public or own_transactions or mode is Mode.WRITE):
            raise TypeError(f"{where}: a standby only answers what one transaction reads")
        if if_match is not None and (public or mode is not Mode.WRITE):
            raise TypeError(f"{where}: if_match is for what changes something")
        answered = status or (204 if returns is None else 200)

        def declare(handler: Handler) -> Handler:
            tag = handler.__module__.rpartition(".")[2]
            self.append(
                Endpoint(
                    method=method,
                    path=(PREFIX if prefix else "") + path,
                    handler=handler,
                    permission=permission,
                    public=public,
                    org_wide=org_wide,
                    admin=admin,
                    in_read_only=in_read_only,
                    gate_free=gate_free,
                    own_transactions=own_transactions,
                    oauth=oauth,
                    upload=upload,
                    receives=receives,
                    body=body,
                    query=query,
                    returns=returns,
                    status=answered,
                    message=message or ("Created" if answered == 201 else "OK"),
                    location=None if location is None else PREFIX + location,
                    mode=mode,
                    replica=replica,
                    idempotent=idempotent,
                    if_match=if_match,
                    deprecated=deprecated,
                    entity=entity or tag,
                    limit=limit,
                    refuses=refuses,
                    media_type=media_type,
                    credential=credential,
                )
            )
            return handler

        return declare

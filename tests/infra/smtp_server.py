"""A mail server in a process of its own: ``python smtp_server.py MODE [CERT KEY]``.

It prints its port, then each message it took as a line of JSON. MODE: plain, starttls, tls (for
these two, with a user who has a password), refuse, busy (for the first two times), hang.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

GOOD = LoginPassword(b"books", b"a password of this test")


class Handler:
    """Takes messages, or not."""

    seen = 0

    def __init__(self, mode: str) -> None:
        self.mode = mode

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        """Refuse a recipient, for ever or for now."""
        Handler.seen += 1
        if self.mode == "refuse":
            return f"550 5.1.1 <{address}> unknown"
        if self.mode == "busy" and Handler.seen <= 2:
            return f"451 4.2.1 <{address}> try later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Print the message."""
        taken = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": bytes(envelope.content or b"").decode(),
            "encrypted": server.transport.get_extra_info("ssl_object") is not None,
            "user": (session.auth_data.login.decode() if session.auth_data else None),
        }
        say(json.dumps(taken))
        return "250 OK"


def main(mode: str, *files: str) -> None:
    """Serve until stdin ends."""
    asyncio.run(hang() if mode == "hang" else serve(mode, *files))


async def serve(mode: str, *files: str) -> None:
    """Take mail."""
    context = None
    if files:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)

    def authenticate(*given: Any) -> AuthResult:
        return AuthResult(success=given[-1] == GOOD, auth_data=given[-1])

    options: dict[str, Any] = {}
    if mode in {"starttls", "tls"}:
        options = {"authenticator": authenticate, "auth_required": True}
    if mode == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    if mode == "tls":
        options["auth_require_tls"] = False  # it does not know that it began with TLS

    def protocol() -> SMTP:
        return SMTP(Handler(mode), hostname="127.0.0.1", **options)

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", 0, ssl=context if mode == "tls" else None
    )
    say(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)
    server.close()


async def hang() -> None:
    """Take connections and say nothing."""

    async def silent(_reader: Any, _writer: Any) -> None:
        await asyncio.sleep(3_600)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    say(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def say(what: object) -> None:
    """Tell the test, on a line of its own."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

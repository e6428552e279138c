"""What of Stripe there is no server for: its checkout pages, over real HTTP, and its signature.

It keeps to what Stripe documents: idempotency keys that replay and refuse other parameters, form
bodies, errors with a type, a code and a param.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.ports import free_port

START_TIMEOUT_S = 180
KEY = "sk_test_" + "5" * 24
SECRET, OLD_SECRET = "whsec_" + "n" * 32, "whsec_" + "o" * 32


def signed(body: bytes, *secrets: str, at_s: int | None = None) -> dict[str, str]:
    """Return the headers of a webhook, with a signature by each secret."""
    timestamp = int(time.time()) if at_s is None else at_s
    signatures = (
        hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        for secret in secrets
    )
    return {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": f"t={timestamp}," + ",".join(f"v1={value}" for value in signatures),
    }


def event(session: dict[str, Any], kind: str = "checkout.session.completed", **more: Any) -> bytes:
    """Write an event about a page as Stripe does; `more` changes the page that it tells of."""
    return json.dumps({
        "id": f"evt_{uuid.uuid4().hex}", "object": "event", "api_version": "2024-06-20",
        "created": int(time.time()), "livemode": False, "type": kind,
        "data": {"object": {**session, **more}},
    }, indent=2).encode()  # fmt: skip


class LocalStripe:
    """localstripe, a process of its own; it makes customers, and signs what it tells of them."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("localstripe"), "--port", str(port), "--from-scratch"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("localstripe does not start")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class StripeServer:
    """The pages that were made, and a way to make it fail."""

    def __init__(self) -> None:
        self.url, self.behind = "", ""
        self.sessions: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[dict[str, str], str]] = {}
        self.is_down = False

    def app(self) -> web.Application:
        """Return the application that serves it."""
        app = web.Application()
        app.router.add_post("/v1/checkout/sessions", self.create)
        app.router.add_post("/v1/checkout/sessions/{id}/expire", self.expire)
        app.router.add_post("/v1/billing_portal/sessions", self.portal)
        app.router.add_post("/v1/customers", self.customer)
        return app

    def paid(self, session_id: str) -> dict[str, Any]:
        """Return a page after its customer has paid."""
        page = self.sessions[session_id]
        page |= {
            "status": "complete", "payment_status": "paid",
            "payment_intent": f"pi_{uuid.uuid4().hex}",
        }  # fmt: skip
        return page

    async def create(self, request: web.Request) -> web.Response:
        """Make a page, once for each key."""
        form = await self._asked(request)
        key = request.headers["Idempotency-Key"]
        if key in self.answers:
            first = self.answers[key]
            if first[0] != form:
                return _error(400, "idempotency_error", None)
            return _json(self.sessions[first[1]], {"Idempotent-Replayed": "true"})
        if int(form["line_items[0][price_data][unit_amount]"]) < 50:
            return _error(400, "amount_too_small", "line_items")
        session_id = f"cs_test_{uuid.uuid4().hex}"
        metadata = {
            name[len("metadata["): -1]: value
            for name, value in form.items() if name.startswith("metadata[")
        }  # fmt: skip
        page = {
            "id": session_id, "object": "checkout.session", "status": "open",
            "payment_status": "unpaid", "payment_intent": None, "mode": form["mode"],
            "amount_total": int(form["line_items[0][price_data][unit_amount]"]),
            "currency": form["line_items[0][price_data][currency]"], "metadata": metadata,
            "client_reference_id": form["client_reference_id"],
            "expires_at": int(form["expires_at"]), "url": f"{self.url}/c/pay/{session_id}",
        }  # fmt: skip
        self.sessions[session_id] = page
        self.answers[key] = form, session_id
        return _json(page)

    async def expire(self, request: web.Request) -> web.Response:
        """End a page, unless it was paid."""
        await self._asked(request)
        page = self.sessions[request.match_info["id"]]
        if page["status"] != "open":
            return _error(400, None, None)
        page["status"] = "expired"
        return _json(page)

    async def customer(self, request: web.Request) -> web.Response:
        """Make a customer, once for each key: by localstripe, which knows no keys."""
        form = await self._asked(request)
        key = request.headers["Idempotency-Key"]
        if key not in self.answers:
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    f"{self.behind}/v1/customers", data=form,
                    headers={"Authorization": request.headers["Authorization"]},
                ) as answer,
            ):  # fmt: skip
                self.answers[key] = form, (await answer.json())["id"]
        return _json({"id": self.answers[key][1], "object": "customer"})

    async def portal(self, request: web.Request) -> web.Response:
        """Make a page of the billing portal."""
        form = await self._asked(request)
        if not form["customer"].startswith("cus_"):
            return _error(400, "resource_missing", "customer")
        return _json({
            "id": f"bps_{uuid.uuid4().hex}", "object": "billing_portal.session", **form,
            "url": f"{self.url}/p/session/{uuid.uuid4().hex}",
        })  # fmt: skip

    async def _asked(self, request: web.Request) -> dict[str, str]:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.path, form))
        if self.is_down:
            raise web.HTTPServiceUnavailable(text="{}", content_type="application/json")
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise web.HTTPUnauthorized(
                text=json.dumps({"error": {"type": "invalid_request_error"}}),
                content_type="application/json",
            )
        return form


def _json(thing: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(thing, headers=headers)


def _error(status: int, code: str | None, param: str | None) -> web.Response:
    told = {"type": "invalid_request_error", "code": code, "param": param, "message": "No."}
    return web.json_response({"error": told}, status=status)

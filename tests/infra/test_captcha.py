"""Captchas: a clear yes of the provider passes, everything else does not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sofinance.config import Settings
from sofinance.infra.captcha import Captcha
from sofinance.infra.command import SetupError
from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "the provider's secret"  # noqa: S105 - made up
HOST = "shop.example"
GOOD = {"success": True, "hostname": HOST}


class Provider:
    """What the provider was asked, and where it is."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    async def verify(  # noqa: C901, PLR0911 - every way in which it may go
        self, request: web.Request
    ) -> web.StreamResponse:
        """Answer as the token says, to show every way in which it may go."""
        form = dict(await request.post())
        self.asked.append(form)
        match form.get("response") if form.get("secret") == SECRET else "wrong secret":
            case "good":
                return web.json_response(GOOD)
            case "elsewhere":
                return web.json_response({**GOOD, "hostname": "evil.example"})
            case "no host":
                return web.json_response({"success": True})
            case "truthy":
                return web.json_response({**GOOD, "success": "true"})
            case "list":
                return web.json_response([GOOD])
            case "broken":
                return web.Response(text='{"success": true', content_type="application/json")
            case "huge":
                return web.json_response({**GOOD, "x": "y" * 100_000})
            case "error":
                return web.json_response(GOOD, status=500)
            case "redirect":
                raise web.HTTPTemporaryRedirect("/yes")
            case "cut":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "hang":
                await asyncio.sleep(30)
        return web.json_response({"success": False, "error-codes": ["invalid-input-response"]})

    async def agree(self, _request: web.Request) -> web.Response:
        """Say yes to everything: where a redirect leads."""
        self.asked.append({"redirected": True})
        return web.json_response(GOOD)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_post("/siteverify", made.verify)
    app.router.add_post("/yes", made.agree)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/siteverify"))
        yield made


def captcha(url: str, *, timeout_s: float = 60, **changes: Any) -> Captcha:
    options: dict[str, Any] = {
        "captcha_mode": "turnstile", "turnstile_secret_key": SECRET,
        "turnstile_verify_url": url, "turnstile_hostname": HOST, **changes,
    }  # fmt: skip
    settings = Settings.for_tests(database_url="postgresql://x/y", **options)
    return Captcha.configured(settings, timeout_s=timeout_s)


async def refused(check: Captcha, token: str | None) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        await check.check(token, ip="192.0.2.7")
    return caught.value.status, caught.value.code


async def test_a_solved_captcha_passes(provider: Provider):
    await captcha(provider.url).check("good", ip="192.0.2.7")
    assert provider.asked == [{"secret": SECRET, "response": "good", "remoteip": "192.0.2.7"}]


@pytest.mark.parametrize("token", [None, ""])
async def test_a_missing_one_is_asked_for(provider: Provider, token: str | None):
    assert await refused(captcha(provider.url), token) == (400, "captcha_required")
    assert provider.asked == []


@pytest.mark.parametrize(
    "token",
    ["bad", "elsewhere", "no host", "truthy", "list", "broken", "huge", "error", "redirect", "cut"],
)
async def test_whatever_is_no_clear_yes_is_a_no(provider: Provider, token: str):
    assert await refused(captcha(provider.url), token) == (403, "captcha_failed")
    assert {"redirected": True} not in provider.asked


async def test_a_provider_that_hangs_or_is_gone_is_a_no_in_time(provider: Provider):
    began = time.monotonic()
    assert await refused(captcha(provider.url, timeout_s=0.5), "hang") == (403, "captcha_failed")
    assert time.monotonic() - began < 20
    assert await refused(captcha("http://127.0.0.1:9/"), "good") == (403, "captcha_failed")


async def test_a_wrong_secret_or_a_huge_token_is_a_no(provider: Provider):
    wrong = captcha(provider.url, turnstile_secret_key="another")
    assert await refused(wrong, "good") == (403, "captcha_failed")
    asked = len(provider.asked)
    assert await refused(captcha(provider.url), "x" * 2_049) == (403, "captcha_failed")
    assert len(provider.asked) == asked


async def test_where_it_is_off_everybody_passes():
    check = captcha("", captcha_mode="off", turnstile_secret_key="")
    assert not check.is_on
    await check.check(None)


def test_settings_under_which_nobody_could_pass_are_refused():
    with pytest.raises(SetupError, match="TURNSTILE_SECRET_KEY is missing"):
        captcha("https://x.example/", turnstile_secret_key="")

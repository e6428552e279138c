"""Forged, foreign, old and stolen access tokens, against the running service."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sofinance.infra.key_files import make_key
from sofinance.infra.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

PATH = "/categories"
REFUSED = (401, "unauthorized")
OTHER_SECRET = "another secret, just as long as the one"  # noqa: S105 - made up


async def status(api: Api, token: str) -> int:
    return (await api.get(PATH, headers={"Authorization": f"Bearer {token}"})).status


async def refuse(api: Api, token: str) -> None:
    answer = await api.get(PATH, headers={"Authorization": f"Bearer {token}"})
    assert answer.refused == REFUSED
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def claims_of(token: str) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return read


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


async def test_a_token_without_a_signature_is_refused(api: Api, org: Org) -> None:
    header, claims, _ = org.admin.token.split(".")
    kid = jwt.get_unverified_header(org.admin.token)["kid"]
    for algorithm in ("none", "None", "nOnE", ""):
        forged = part({"alg": algorithm, "typ": "at+jwt", "kid": kid})
        await refuse(api, f"{forged}.{claims}.")
    await refuse(api, f"{header}.{claims}.")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1}, {"exp": "soon"}, {"nbf": int(time.time()) + 3600}, {"iss": "somebody"},
        {"aud": "others"}, {"aud": None}, {"org": 0}, {"org": 2**63}, {"sid": 10**15},
        {"sid": "1 or 1=1"}, {"sub": "0"}, {"sub": 10**15},
    ],
)  # fmt: skip
async def test_a_token_of_ours_that_says_something_else_is_refused(
    api: Api, org: Org, settings: Settings, changes: dict[str, Any]
) -> None:
    """Signed with our own key, so that only what it says can be what is refused."""
    header = jwt.get_unverified_header(org.admin.token)
    claims = orjson.dumps(claims_of(org.admin.token) | changes)
    signer = jwt.PyJWS()
    forged = signer.encode(claims, settings.jwt_secret, algorithm="HS256", headers=header)
    await refuse(api, forged)


async def test_a_session_of_somebody_else_is_refused(
    api: Api, org: Org, other_org: Org, settings: Settings
) -> None:
    ring = KeyRing.configured(settings)
    ours, theirs = claims_of(org.admin.token), claims_of(other_org.admin.token)
    cashiers = claims_of(org.member("CASHIER").token)
    for mixed in (
        ours | {"sid": theirs["sid"]},
        ours | {"org": theirs["org"]},
        ours | {"org": theirs["org"], "sid": theirs["sid"]},
        cashiers | {"sub": ours["sub"]},
    ):
        await refuse(api, ring.sign(mixed))


async def test_a_key_is_not_confused_with_another(api: Api, org: Org, settings: Settings) -> None:
    header = {"kid": jwt.get_unverified_header(org.admin.token)["kid"], "typ": "at+jwt"}
    claims = claims_of(org.admin.token)
    for algorithm in ("HS384", "HS512"):
        await refuse(
            api, jwt.encode(claims, settings.jwt_secret * 2, algorithm=algorithm, headers=header)
        )
    for changed in ({"kid": "x"}, {"kid": "../../etc/passwd"}, {"typ": "JWT"}):
        forged = jwt.encode(
            claims, OTHER_SECRET, algorithm="HS256", headers={**header, **changed}
        )  # fmt: skip
        await refuse(api, forged)
    await refuse(api, org.admin.token + "x")
    await refuse(api, org.admin.token[:-6] + "AAAAAA")
    await refuse(api, "x" * 5_000)


async def test_a_public_key_is_no_secret(api_with: MakeApi, org: Org, tmp_path: Path) -> None:
    """RFC 8725: HS256 with the bytes of the public key, which everybody may read."""
    folder = tmp_path / "keys"
    folder.mkdir()
    make_key(folder, "eddsa", now=datetime.now(UTC))
    api = await api_with(jwt_keys_dir=str(folder))
    published = (await api.get("/.well-known/jwks.json", prefix="")).body["keys"]
    assert [key["alg"] for key in published] == ["EdDSA"]
    assert "d" not in published[0]
    public = jwt.PyJWK(published[0]).key
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"kid": published[0]["kid"], "typ": "at+jwt"}
    signer = jwt.PyJWS()
    claims = orjson.dumps(claims_of(org.admin.token))
    signing = base64.urlsafe_b64encode(orjson.dumps({**header, "alg": "HS256"})).rstrip(b"=")
    payload = base64.urlsafe_b64encode(claims).rstrip(b"=")
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = base64.urlsafe_b64encode(algorithm.sign(signing + b"." + payload, pem)).rstrip(b"=")
    await refuse(api, b".".join((signing, payload, signature)).decode())
    stranger = Ed25519PrivateKey.generate()
    await refuse(api, signer.encode(claims, stranger, algorithm="EdDSA", headers=header))
    # The key may not be named by the token itself.
    own = {**header, "jwk": published[0], "jku": "https://example.com/keys"}
    await refuse(api, signer.encode(claims, stranger, algorithm="EdDSA", headers=own))


async def test_tokens_live_through_a_change_of_the_secret_then_die(
    api_with: MakeApi, org: Org, settings: Settings
) -> None:
    old = org.admin.token
    changed = replace(settings, jwt_secret=OTHER_SECRET)
    new = KeyRing.configured(changed).sign(claims_of(old))
    during = await api_with(jwt_secret=OTHER_SECRET, jwt_secret_previous=settings.jwt_secret)
    assert (await status(during, old), await status(during, new)) == (200, 200)
    after = await api_with(jwt_secret=OTHER_SECRET)
    assert await status(after, new) == 200
    await refuse(after, old)


async def test_a_token_dies_with_its_session_and_with_its_user(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier, manager = org.member("CASHIER"), org.member("MANAGER")
    assert (await status(api, cashier.token), await status(api, manager.token)) == (200, 200)
    psql(
        "update user_session set revoked_at = now(), revoked_why = 'administrator'"
        " where user_id = %s", [cashier.id], org=org,
    )  # fmt: skip
    psql("update app_user set is_active = false where id = %s", [manager.id], org=org)
    await refuse(api, cashier.token)
    await refuse(api, manager.token)

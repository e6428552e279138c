"""What the alerts about card payments are about: no Stripe, a wrong secret, a sale paid twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg

from tests.ops import live
from tests.ops.strain import repeatedly
from tests.stripe_server import KEY, SECRET, event, signed

if TYPE_CHECKING:
    from tests.ops.symptoms import Scene

WEBHOOK = "/api/v1/payments/stripe/webhook"
# Nobody listens there: whoever asks is told so at once.
SETTINGS = {
    "STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRET": SECRET, "STRIPE_ORG_IDS": "1",
    "STRIPE_API_URL": "http://127.0.0.1:9", "STRIPE_SUCCESS_URL": "http://127.0.0.1/paid",
    "STRIPE_CANCEL_URL": "http://127.0.0.1/back", "STRIPE_CIRCUIT_RECOVERY_S": "10",
}  # fmt: skip


def tell(scene: Scene, body: bytes, secret: str = SECRET) -> int:
    """Tell what Stripe would; returns the status."""
    headers = signed(body, secret)
    headers.pop("Content-Type")
    return live.ask(scene.port, WEBHOOK, "POST", body, **headers)[0]


def owe(scene: Scene) -> int:
    """Sell something on credit; returns the sale."""

    def made(path: str, **body: Any) -> Any:
        status, data = scene.ask(path, "POST", **body)
        assert status == 201, data
        return data

    branch = made("/branches", name="Pier")
    product = made("/products", sku="ROPE", name="Rope", price="10.00", cost="6.00")["id"]
    line = {"product_id": product, "quantity": "1"}
    made("/inventory/receipts", branch_id=branch["id"], kind="OPENING",
         lines=[{**line, "unit_cost": "6.00"}])  # fmt: skip
    customer = made("/customers", name="Carla", credit_limit="100")["id"]
    sale = made("/sales", branch_id=branch["id"], customer_id=customer, items=[line])
    return int(sale["id"])


def take_cards(scene: Scene) -> None:
    """Ask a Stripe that is not there, hear from somebody else, and have a sale paid twice."""
    sale = owe(scene)

    def start() -> None:
        assert scene.ask(f"/sales/{sale}/checkout", "POST")[0] == 503

    with repeatedly(start):
        scene.fires("StripeCircuitOpen")
    with repeatedly(lambda: tell(scene, b"{}", "whsec_" + "x" * 32)):
        assert tell(scene, b"{}", "whsec_" + "x" * 32) == 400
        scene.fires("StripeWebhookErrorsSpiking")
    with psycopg.connect(scene.database.url("postgres")) as conn:
        org_id, token = conn.execute("select org_id, token::text from stripe_checkout").fetchone()
    total = scene.ask(f"/sales/{sale}")[1]["total"]
    assert scene.ask(f"/sales/{sale}/payments", "POST", amount=total)[0] == 201
    told = event({
        "id": "cs_1", "object": "checkout.session", "payment_status": "paid",
        "payment_intent": "pi_1", "currency": "eur", "amount_total": int(total.replace(".", "")),
        "metadata": {"org_id": str(org_id), "checkout": token},
    })  # fmt: skip
    assert tell(scene, told) == 200
    scene.run_job("business-figures")
    scene.fires("CardPaymentsUnposted")
    paid_back = f"/payments/stripe/events/{json.loads(told)['id']}/settle"
    assert scene.ask(paid_back, "POST", note="paid back")[0] == 200
    scene.run_job("business-figures")
    scene.rests()

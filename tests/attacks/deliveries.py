"""The attacks on events, endpoints and deliveries: what is told, to whom, signed with what."""

from __future__ import annotations

from tests.attacks.forgery import Attack, Columns, insert

OWNER = "sofinance_owner"
LONG = "repeat('x', 2001)"
ENDPOINT: Columns = {
    "org_id": ":org",
    "slot": "2",
    "url": "'https://example.com/new'",
    "signature": "'hmac'",
    "created_by": ":user",
}
SECRET: Columns = {
    "org_id": ":org",
    "endpoint_id": ":endpoint",
    "sealed": "decode(repeat('00', 60), 'hex')",
}
EVENT: Columns = {
    "org_id": ":org",
    "id": "0",
    "type": "'sale.posted'",
    "aggregate": "'sale'",
    "aggregate_id": ":sale",
    "subject_id": ":sale",
    "occurred_at": "now()",
}
DELIVERY: Columns = {
    "org_id": ":org",
    "endpoint_id": ":endpoint",
    "event_id": "(select max(id) from event where org_id = :org)",
    "aggregate": "'sale'",
    "aggregate_id": ":sale",
}
NOBODY = "select set_config('app.org_id', '0', true);\n"


def bad(
    what: str, refused_by: str, table: str, good: Columns, role: str = "sofinance_app", **but: str
) -> Attack:
    """Return the attack that inserts a good row with something bad in it."""
    return Attack(what, refused_by, insert(table, {**good, **but}), role)


DELIVERIES = (
    bad("A second endpoint in the place of the first", "webhook_endpoint_slots",
        "webhook_endpoint", ENDPOINT, slot="1"),
    bad("A 21st endpoint", "webhook_endpoint_at_most_20", "webhook_endpoint", ENDPOINT, slot="21"),
    bad("An endpoint that is a file", "webhook_endpoint_url_form", "webhook_endpoint", ENDPOINT,
        url="'file:///etc/passwd'"),
    bad("An endpoint described at length", "webhook_endpoint_description_not_long",
        "webhook_endpoint", ENDPOINT, description=LONG),
    bad("An endpoint of no events", "webhook_endpoint_types_few", "webhook_endpoint", ENDPOINT,
        event_types="'{}'"),
    bad("An endpoint whose messages are not signed", "webhook_endpoint_signature_known",
        "webhook_endpoint", ENDPOINT, signature="'none'"),
    bad("An endpoint of nobody", "webhook_endpoint_user_known", "webhook_endpoint", ENDPOINT,
        created_by="0"),
    Attack("An endpoint of an organisation that does not exist",
           "webhook_endpoint_organisation_known",
           NOBODY + insert("webhook_endpoint", {**ENDPOINT, "org_id": "0"})),
    Attack("An endpoint disabled without a reason", "webhook_endpoint_disabled_with_reason",
           "update webhook_endpoint set is_active = false, disabled_at = now();\n"),
    Attack("An endpoint handed to somebody else", "privilege",
           "update webhook_endpoint set created_by = :cashier;\n"),
    bad("A secret of no endpoint", "webhook_secret_endpoint_known", "webhook_secret", SECRET,
        endpoint_id="0"),
    bad("A secret of another organisation's endpoint", "webhook_secret_endpoint_known",
        "webhook_secret", SECRET, endpoint_id=":other_endpoint"),
    bad("A secret in clear", "webhook_secret_is_sealed", "webhook_secret", SECRET,
        sealed="'whsec_c2VjcmV0'"),
    bad("A public key that is none", "webhook_secret_public_key_form", "webhook_secret", SECRET,
        public_key="'whsec_c2VjcmV0'"),
    bad("A second secret that does not end", "webhook_secret_current_once", "webhook_secret",
        SECRET),
    Attack("A secret moved to another endpoint", "privilege",
           "update webhook_secret set endpoint_id = endpoint_id;\n"),
    bad("An event made up", "privilege", "event", EVENT),
    Attack("An event in the outbox made up", "privilege",
           "insert into outbox_event (org_id, type, aggregate, aggregate_id, subject_id)"
           " values (:org, 'sale.posted', 'sale', :sale, :sale);\n"),
    Attack("An event hushed up", "privilege", "delete from outbox_event;\n"),
    Attack("What is told changed", "privilege", "update event set body = '{}';\n"),
    bad("A message of 20 kB", "event_body_below_20_kb", "event", EVENT, OWNER,
        body="repeat('x', 20000)"),
    bad("A message known by something else", "event_message_id_form", "event", EVENT, OWNER,
        message_id="'1'"),
    bad("A delivery made up", "privilege", "webhook_delivery", DELIVERY),
    Attack("A dead letter hushed up", "privilege",
           "update webhook_delivery set status = 'delivered';\n"),
    Attack("The queue emptied", "privilege", "delete from webhook_lane;\n"),
    Attack("A circuit opened", "privilege",
           "update webhook_circuit set open_until = now() + '1 year';\n"),
    bad("A delivery twice", "webhook_delivery_event_taken", "webhook_delivery", DELIVERY, OWNER),
    bad("A delivery to no endpoint", "webhook_delivery_endpoint_known", "webhook_delivery",
        DELIVERY, OWNER, endpoint_id="0"),
    bad("A delivery of no event", "webhook_delivery_event_known", "webhook_delivery", DELIVERY,
        OWNER, event_id="0"),
    bad("A delivery whose state is none", "webhook_delivery_status_known", "webhook_delivery",
        DELIVERY, OWNER, event_id="1", status="'lost'"),
    bad("A delivery that arrived at no time", "webhook_delivery_delivered_at_a_time",
        "webhook_delivery", DELIVERY, OWNER, status="'delivered'"),
    bad("A code that is a story", "webhook_delivery_error_not_long", "webhook_delivery", DELIVERY,
        OWNER, last_error=LONG),
)  # fmt: skip

"""The attacks on the customers' portal: links used again, sessions without one, others' links."""

from __future__ import annotations

from tests.attacks.master_data import change, row

PORTAL = (
    row("A link to the portal for nobody", "portal_link_customer_known", "portal_link",
        customer_id="0"),
    row("A link to the portal sent by nobody", "portal_link_issuer_known", "portal_link",
        issued_by="0"),
    row("A fourth link to the portal", "portal_link_few", "portal_link", slot="4"),
    row("A second link in the place of an open one", "portal_link_open_once", "portal_link",
        slot="1"),
    row("A link to the portal in clear", "portal_link_is_digest", "portal_link",
        token_hash="'secret'"),
    row("A link to the portal that another one is", "portal_link_token_once", "portal_link",
        token_hash="sha256('open')"),
    row("A link to the portal for an hour", "portal_link_short_lived", "portal_link",
        expires_at="now() + '1 hour'"),
    change("A link to the portal made good again", "portal_link_stays_used",
           "update portal_link set used_at = null where used_at is not null"),
    change("A link to the portal used a second time", "portal_link_stays_used",
           "update portal_link set used_at = now() where used_at is not null"),
    change("A link's end put off", "privilege",
           "update portal_link set expires_at = now() + '10 minutes'"),
    change("A link handed to another customer", "privilege",
           "update portal_link set customer_id = :blacklisted"),
    row("A session in the portal without using a link up", "portal_session_link_good",
        "portal_session"),
    change("A session by a link that was used just before it was issued",
           "portal_session_link_good",
           "update portal_link set used_at = now() - interval '1 second' where used_at is null;"
           " insert into portal_session (org_id, customer_id, link_id, secret_hash, expires_at)"
           " values (:org, :customer, :portal_link, sha256('n'), now() + '1 hour')"),
    row("A second session by one link", "portal_session_link_taken", "portal_session",
        link_id=":used_link"),
    row("A session by no link", "portal_session_link_known", "portal_session", link_id="0"),
    row("A session by another customer's link", "portal_session_link_known", "portal_session",
        customer_id=":blacklisted"),
    row("A session in the portal in clear", "portal_session_is_digest", "portal_session",
        secret_hash="'secret'"),
    row("A session in the portal for two days", "portal_session_short_lived", "portal_session",
        expires_at="now() + '2 days'"),
    change("A session in the portal that begins again", "portal_session_stays_ended",
           "update portal_session set ended_at = now();"
           " update portal_session set ended_at = null"),
    change("A session in the portal handed to another customer", "privilege",
           "update portal_session set customer_id = :blacklisted"),
    change("A session in the portal that lasts longer", "privilege",
           "update portal_session set expires_at = now() + '20 hours'"),
    change("A session in the portal for a user's", "SF401",
           "select admit(null, max(id), null, null) from portal_session"),
)  # fmt: skip

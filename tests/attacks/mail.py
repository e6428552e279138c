"""The attacks on mail and on who asked to be forgotten: twice, to nobody, by nobody."""

from __future__ import annotations

from tests.attacks.master_data import OWNER, change, of_nobody, row

MAIL = (
    row("A mail that was told already", "mail_dedupe_taken", "mail",
        dedupe_key="'low-stock:1'"),
    row("A dedupe key of anything", "mail_dedupe_key_form", "mail", dedupe_key="'Low Stock'"),
    row("A mail of another kind", "mail_kind_known", "mail", kind="'gossip'"),
    row("A mail to nobody", "mail_recipient_form", "mail", recipient="'nobody'"),
    row("A subject of 201 characters", "mail_text_not_long", "mail",
        subject="repeat('x', 201)"),
    row("A mail that is on its way", "mail_status_known", "mail", status="'on its way'"),
    change("A sixth attempt to send", "mail_attempts_bounded",
           "update mail set attempt_count = 6"),
    change("A mail sent at no time", "mail_sent_at_once",
           "update mail set status = 'sent' where status = 'pending'"),
    change("An error of 201 characters", "mail_error_not_long",
           "update mail set last_error = repeat('x', 201)"),
    change("What was sent, sent again", "mail_sent_stays",
           "update mail set status = 'pending', sent_at = null where status = 'sent'"),
    of_nobody("mail"),
    row("An address blocked twice", "mail_block_pk", "mail_block", address="'no@example.com'"),
    row("A blocked address in capitals", "mail_block_address_form", "mail_block",
        address="'No@example.com'"),
    row("A block for another reason", "mail_block_reason_known", "mail_block", OWNER,
        reason="'dislike'"),
    of_nobody("mail_block"),
    row("A second request to be forgotten", "data_deletion_request_open_once",
        "data_deletion_request", customer_id=":customer"),
    row("A request of a customer that there is not", "data_deletion_request_customer_known",
        "data_deletion_request", customer_id="0"),
    row("A request by nobody", "data_deletion_request_requester_known",
        "data_deletion_request", requested_by="0"),
    row("A request without a reason", "data_deletion_request_reason_given",
        "data_deletion_request", reason="' '"),
    change("A request done without counts", "data_deletion_request_counted",
           "update data_deletion_request set processed_at = now()"),
    change("A request undone", "data_deletion_request_stays",
           "update data_deletion_request set processed_at = now(), attachments_deleted = 0,"
           " mails_emptied = 0; update data_deletion_request set mails_emptied = 1"),
)  # fmt: skip

"""The attacks on files: objects of others, uploads that never were, room that there is not."""

from __future__ import annotations

from tests.attacks.master_data import NOBODY, OWNER, change, of_nobody, row

LONG_NAME = "repeat('x', 201)"
THEIRS = "'org/' || (:org + 1) || '/attachments/' || repeat('a', 32)"
KEY = "'org/' || :org || '/attachments/' || repeat('{}', 32)"

ATTACHMENTS = (
    row("A file of which no upload began", "attachment_is_uploaded", "attachment",
        object_key=KEY.format("f")),
    row("A file of another organisation's store", "attachment_is_uploaded", "attachment",
        object_key=THEIRS),
    change("A file whose object the janitor has in its hands", "attachment_is_uploaded",
           "update storage_tombstone set attempt_count = 1 where object_key like '%attachments/b%';"
           "insert into attachment (org_id, customer_id, object_key, filename, content_type,"
           " size_bytes, sha256, created_by) select :org, :customer, object_key, 'a',"
           " 'text/plain', 1, sha256('x'), :user from storage_tombstone where attempt_count = 1"),
    row("The same file twice at one document", "attachment_content_taken", "attachment",
        sha256="sha256('old')"),
    change("One object attached twice", "attachment_object_taken",
           "insert into storage_tombstone (org_id, object_key, due_at)"
           " select :org, object_key, now() from attachment limit 1;"
           "insert into attachment (org_id, customer_id, object_key, filename, content_type,"
           " size_bytes, sha256, created_by) select org_id, customer_id, object_key,"
           " filename, content_type, 1, sha256('x'), created_by from attachment limit 1"),
    row("A file attached to two things", "attachment_of_one_document", "attachment",
        product_id=":product"),
    *(
        row(f"A file of a {rule.removeprefix('attachment_')[:-6]} that there is not", rule,
            "attachment", role=OWNER, **{"customer_id": "null", f"{rule[11:-6]}_id": "0"})
        for rule in (
            "attachment_sale_known", "attachment_product_known", "attachment_customer_known",
            "attachment_goods_receipt_known", "attachment_journal_entry_known",
        )
    ),
    row("A file by nobody", "attachment_creator_known", "attachment", created_by="0"),
    row("A name of 201 characters", "attachment_filename_form", "attachment", filename=LONG_NAME),
    row("A name that is a path", "attachment_filename_form", "attachment",
        filename="'../passwd'"),
    row("A content type that ends a header", "attachment_content_type_form", "attachment",
        content_type=r"E'text/html\r\n'"),
    row("A file without a byte", "attachment_size_in_range", "attachment", size_bytes="0"),
    row("A digest of another kind", "attachment_is_digest", "attachment", sha256="'\\x00'"),
    row("More than there is room for", "attachment_usage_within_quota", "attachment",
        size_bytes="1073741824"),
    change("More room than one was given", "privilege",
           "update attachment_usage set quota_bytes = 1e15"),
    change("Less room than is taken", "attachment_usage_within_quota",
           "update attachment_usage set quota_bytes = 1", OWNER),
    change("Fewer files than none", "attachment_usage_not_negative",
           "update attachment_usage set file_count = -1", OWNER),
    of_nobody("attachment_usage", OWNER),
    row("The removal of another organisation's object", "storage_tombstone_object_is_own",
        "storage_tombstone", object_key=THEIRS),
    row("The removal of what is no object", "storage_tombstone_object_is_own",
        "storage_tombstone", object_key="'org/' || :org || '/../1/a'"),
    row("An object removed twice", "storage_tombstone_object_taken", "storage_tombstone",
        object_key=KEY.format("b")),
    change("A sixth attempt to remove an object", "storage_tombstone_attempts_bounded",
           "update storage_tombstone set attempt_count = 6"),
    change("An object given up at once", "storage_tombstone_given_up_last",
           "update storage_tombstone set given_up_at = now()"),
    change("An error of 201 characters", "storage_tombstone_error_not_long",
           f"update storage_tombstone set last_error = {LONG_NAME}"),
    change("A row of storage_tombstone for an organisation that does not exist",
           "storage_tombstone_organisation_known",
           NOBODY + "insert into storage_tombstone (org_id, object_key, due_at)"
           " values (0, 'org/0/attachments/' || repeat('d', 32), now())"),
    row("A link used twice", "signed_url_use_pk", "signed_url_use",
        token_id=r"decode(repeat('00', 16), 'hex')"),
    row("A link with a short number", "signed_url_use_token_length", "signed_url_use",
        token_id=r"'\x00'"),
    of_nobody("signed_url_use"),
)  # fmt: skip

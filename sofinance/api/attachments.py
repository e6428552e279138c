"""Files attached to sales, products, customers, goods receipts and journal entries."""

from __future__ import annotations

import time
from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, files, signed_urls
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError, not_found
from sofinance.infra.fields import Id, PageQuery, Timestamp
from sofinance.infra.guard import forbidden
from sofinance.infra.http import PREFIX, Call, Routes, paged
from sofinance.infra.times import from_seconds

routes = Routes()

# What one must be allowed to see to see what is attached to it.
READING = {
    "sale": "sales:read",
    "product": "products:read",
    "customer": "customers:read",
    "goods_receipt": "inventory:read",
    "journal_entry": "journal:read",
}
KIND, PURPOSE = "attachments", "attachment"
DOWNLOAD = "/attachments/signed-download"
TTL_S, TTL_S_MAX = 60, 3_600


class Document(Schema):
    """To what files are attached."""

    entity = fields.Str(required=True, validate=validate.OneOf(list(READING)))
    entity_id = Id(required=True)


class AttachmentQuery(PageQuery, Document):
    """The files of one document."""


class Attachment(Schema):
    """What is known of a file; its content type is what its bytes are."""

    id = Id(required=True)
    entity = fields.Str(required=True)
    entity_id = Id(required=True)
    filename = fields.Str(required=True)
    content_type = fields.Str(required=True)
    size_bytes = fields.Int(required=True)
    sha256 = fields.Str(required=True)
    created_at = Timestamp(required=True)
    created_by = Id(required=True)


class NewSignedUrl(Schema):
    """How long a link is good, and whether for one download only."""

    ttl_seconds = fields.Int(load_default=TTL_S, strict=True, validate=validate.Range(1, TTL_S_MAX))
    one_time = fields.Bool(load_default=False)


class SignedUrl(Schema):
    """A link that downloads a file without signing in."""

    url = fields.Str(required=True)
    expires_at = Timestamp(required=True)
    expires_in = fields.Int(required=True)
    one_time = fields.Bool(required=True)


class Token(Schema):
    token = fields.Str(required=True, validate=validate.Length(1, signed_urls.TOKEN_LENGTH_MAX))


@routes.endpoint(
    "POST", "/attachments", permission="attachments:write", own_transactions=True,
    query=Document(), upload=True, returns=Attachment(), status=201, idempotent=False,
    location="/attachments/{id}", refuses=(409, 503),
)  # fmt: skip
async def attach_file(call: Call) -> Any:
    """Attach a file: one part named `file` in multipart/form-data.

    What it is is told from its bytes: PNG, JPEG, GIF, WebP, PDF, XLS, XLSX, text or CSV; anything
    else is 415 `content_type_not_allowed`. 413 `payload_too_large` past UPLOAD_MAX_BYTES; 409
    `attachment_content_taken` when the document has this very file, so that it may be sent again;
    409 `attachment_usage_within_quota`; 503 `storage_unavailable`.
    """
    demand_reading(call, call.query["entity"])
    async with call.transaction(mode=Mode.READ) as conn:
        room = await q.attachments.check_document(conn, org_id=call.org_id, **call.query)
    if room.left_bytes <= 0:
        raise ApiError(
            "attachment_usage_within_quota",
            "The organisation's files would take more space than it has; remove some first.",
            status=409,
        )
    await call.upload.begin()
    key = files.new_key(call, KIND)
    async with call.transaction() as conn:
        await q.attachments.begin_upload(
            conn, org_id=call.org_id, object_key=key, keep_s=files.kept_s(call)
        )
    stored = await files.keep(call, key, call.upload)
    async with call.transaction() as conn:
        made = await q.attachments.create_attachment(
            conn, org_id=call.org_id, **call.query, object_key=key,
            filename=call.upload.filename, content_type=call.upload.content_type,
            size_bytes=stored.size_bytes, sha256=stored.sha256, created_by=call.user_id,
        )  # fmt: skip
        await note(call, conn, "attachments.attach_file", made)
    return made


@routes.endpoint(
    "GET", "/attachments", permission="attachments:read", query=AttachmentQuery(),
    returns=paged(Attachment()), refuses=(404,),
)  # fmt: skip
async def list_attachments(call: Call) -> Any:
    """List what is attached to a document; 404 when there is none, or none that you may see."""
    document = {name: call.query[name] for name in ("entity", "entity_id")}
    demand_reading(call, document["entity"])
    await q.attachments.check_document(call.conn, org_id=call.org_id, **document)
    rows = await q.attachments.list_attachments(
        call.conn, org_id=call.org_id, **document, limit=call.limit, offset=call.offset
    )
    total = await q.attachments.count_attachments(call.conn, org_id=call.org_id, **document)
    return rows, total


@routes.endpoint(
    "GET", "/attachments/{id}", permission="attachments:read", returns=Attachment()
)  # fmt: skip
async def get_attachment(call: Call) -> Any:
    """Get what is known of a file."""
    return await find(call, call.conn)


@routes.endpoint("DELETE", "/attachments/{id}", permission="attachments:write")
async def delete_attachment(call: Call) -> Any:
    """Remove a file; its bytes are gone from the store a little later."""
    await find(call, call.conn)
    call.before(
        await q.attachments.delete_attachment(call.conn, org_id=call.org_id, id=call.path["id"])
    )


@routes.endpoint(
    "GET", "/attachments/{id}/content", permission="attachments:read", own_transactions=True,
    idempotent=False, returns=None, status=200, media_type="*/*",
    refuses=(503,),
)  # fmt: skip
async def download(call: Call) -> Any:
    """Download a file, to be saved and never shown by a browser; 503 `storage_unavailable`."""
    async with call.transaction(mode=Mode.READ) as conn:
        found = await find(call, conn)
    reading = await files.fetch(call, found.object_key)
    return files.FileResponse(reading, filename=found.filename, content_type=found.content_type)


@routes.endpoint(
    "POST", "/attachments/{id}/signed-url", permission="attachments:read", read=True,
    idempotent=False, body=NewSignedUrl(), returns=SignedUrl(),
)  # fmt: skip
async def sign_url(call: Call) -> Any:
    """Get a link with which anybody may download a file for a while, or once.

    It is relative to this service's address. It ends early when the file is removed.
    """
    found = await find(call, call.conn)
    ttl_s, is_one_time = call.body["ttl_seconds"], call.body["one_time"]
    expires_at_s = int(time.time()) + ttl_s
    token = signed_urls.write(
        call.secret_box, purpose=PURPOSE, org_id=call.org_id, of_id=found.id,
        expires_at_s=expires_at_s, is_one_time=is_one_time,
    )  # fmt: skip
    return {
        "url": f"{PREFIX}{DOWNLOAD}?token={token}",
        "expires_at": from_seconds(expires_at_s),
        "expires_in": ttl_s,
        "one_time": is_one_time,
    }


@routes.endpoint(
    "GET", DOWNLOAD, public=True, query=Token(), returns=None, status=200,
    media_type="*/*", refuses=(401, 404, 410, 503),
)  # fmt: skip
async def download_signed(call: Call) -> Any:
    """Download a file by a link.

    401 `signed_url_expired` or `signed_url_invalid`, 404 once the file is removed, 410
    `signed_url_used` for one that was good once.
    """
    grant = signed_urls.read(
        call.secret_box, call.query["token"], purpose=PURPOSE, now_s=call.now.timestamp()
    )
    async with call.tenant(grant.org_id, mode=Mode.READ) as conn:
        found = await q.attachments.get_attachment(conn, org_id=grant.org_id, id=grant.of_id)
    reading = await files.fetch(call, found.object_key)
    if grant.is_one_time:
        async with call.tenant(grant.org_id) as conn:
            taken = await q.attachments.use_signed_url(
                conn, org_id=grant.org_id, token_id=grant.number, expires_at_s=grant.expires_at_s
            )
        if not taken:
            await reading.aclose()
            raise signed_urls.used()
    return files.FileResponse(reading, filename=found.filename, content_type=found.content_type)


async def find(call: Call, conn: Any) -> Any:
    """Return an attachment of a document that the caller may see; 403 or 404 otherwise."""
    found = await q.attachments.get_attachment(conn, org_id=call.org_id, id=call.path["id"])
    demand_reading(call, found.entity)
    return found


def demand_reading(call: Call, entity: str) -> None:
    """Let pass who may see such documents; raises forbidden (403)."""
    permission = READING[entity]
    if not call.allows(permission):
        raise forbidden(f"This needs the permission {permission}.", permission=permission)
    if entity == "journal_entry" and call.principal.branch_ids is not None:
        raise not_found()


async def note(call: Call, conn: Any, action: str, row: Any) -> None:
    """Write the audit row of what was done in a transaction of the handler's own."""
    await audit.write(
        call, conn, org_id=call.org_id, user_id=call.user_id,
        session_id=call.principal.session_id, action=action, entity=KIND, entity_id=row.id,
        after=dict(row.items()),
    )  # fmt: skip

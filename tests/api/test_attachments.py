"""Files: streamed in, told by their bytes, kept apart by organisation, gone once removed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sofinance.infra.db import Database
from sofinance.jobs import JobFailedError
from sofinance.jobs.janitor import clean_storage, find_orphans
from tests.api.conftest import open_shop
from tests.support import PREFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sofinance.config import Settings
    from tests.api.conftest import Shop
    from tests.s3_server import S3Server
    from tests.support import Answer, Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
PDF = b"%PDF-1.7\n" + b"x" * 500
BOUNDARY = "a-boundary-of-the-test"
RACERS = 12


def form(content: bytes, filename: str = "receipt.png", *, name: str = "file") -> bytes:
    """Return one file as a browser would send it."""
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    start = f"--{BOUNDARY}\r\n{head}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return start.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


async def attach(
    api: Api, who: Org | User, content: bytes = PNG, filename: str = "receipt.png", **options: Any
) -> Answer:
    """Attach a file."""
    entity, entity_id = options.pop("to")
    return await api.post(
        f"/attachments?entity={entity}&entity_id={entity_id}", who,
        content=options.pop("body", None) or form(content, filename),
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, **options,
    )  # fmt: skip


async def load(api: Api, path: str, who: Org | User | None = None) -> tuple[int, Any, bytes]:
    """Return status, headers and the very bytes of an answer."""
    user = who if who is None or hasattr(who, "token") else who.admin
    headers = {} if user is None else {"Authorization": f"Bearer {user.token}"}
    prefix = "" if path.startswith(PREFIX) else PREFIX
    async with api.session.get(f"{api.base_url}{prefix}{path}", headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


@pytest.fixture
async def customer(api: Api, org: Org) -> tuple[str, int]:
    """A customer to attach to."""
    return "customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"]


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The worker's pool, with the directory of the application that the test asks."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


def due(psql: Psql, org: Org) -> None:
    """Let everything be due that the store is to forget."""
    psql("update storage_tombstone set due_at = now() - interval '1 second'", org=org)


def files_of(api: Api, org: Org) -> list[Path]:
    """Return the files of an organisation in the application's directory."""
    from sofinance.app import MACHINE  # noqa: PLC0415

    root = api.app[MACHINE].storage._root / "org" / str(org.id)  # noqa: SLF001
    return [path for path in root.rglob("*") if path.is_file()]


# -- attaching -------------------------------------------------------------------------------------


async def test_a_file_is_attached_listed_and_downloaded(api, org, customer):
    made = await attach(api, org, to=customer)
    assert made.status == 201
    file = made.data
    assert made.headers["Location"] == f"{PREFIX}/attachments/{file['id']}"
    assert (file["filename"], file["content_type"]) == ("receipt.png", "image/png")
    assert (file["entity"], file["entity_id"]) == customer
    assert (file["size_bytes"], file["sha256"]) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert file["created_by"] == org.admin.id
    listed = await api.get(f"/attachments?entity=customer&entity_id={customer[1]}", org)
    assert listed.data["items"] == [file]
    assert (await api.get(f"/attachments/{file['id']}", org)).data == file
    status, headers, content = await load(api, f"/attachments/{file['id']}/content", org)
    assert (status, content) == (200, PNG)
    assert headers["Content-Type"] == "image/png"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Disposition"].startswith('attachment; filename="receipt.png"')
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["X-Request-ID"]


async def test_every_kind_of_document_takes_files(api, org, shop: Shop):
    sale = (await shop.sell(paid="11.00")).data["id"]
    line = {"product_id": shop.product_ids[0], "quantity": "1", "unit_cost": "6"}
    receipt = await api.post(
        "/inventory/receipts", org,
        {"branch_id": shop.branch_id, "kind": "PURCHASE", "lines": [line]},
    )  # fmt: skip
    accounts = {a["code"]: a["id"] for a in
                (await api.get("/accounts?size=100", org)).data["items"]}  # fmt: skip
    entry = await api.post("/journal/entries", org, {"lines": [
        {"account_id": accounts["6000"], "debit": "5.00"},
        {"account_id": accounts["1000"], "credit": "5.00"},
    ]})  # fmt: skip
    for to in (
        ("sale", sale), ("product", shop.product_ids[0]), ("goods_receipt", receipt.data["id"]),
        ("journal_entry", entry.data["id"]),
    ):  # fmt: skip
        assert (await attach(api, org, PDF, "a.pdf", to=to)).status == 201
        assert (await attach(api, org, to=(to[0], 999_999_999))).refused == (404, "not_found")


@pytest.mark.parametrize(
    ("content", "filename", "content_type"),
    [
        (b"\xff\xd8\xff\xe0" + b"x" * 50, "a.jpg", "image/jpeg"),
        (b"GIF89a" + b"x" * 50, "a.gif", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a.webp", "image/webp"),
        (PDF, "a.exe", "application/pdf"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 50, "a.xls", "application/vnd.ms-excel"),
        ("name,amount\nÄnne,5\n".encode(), "a.CSV", "text/csv"),
        (b"a note", "a.txt", "text/plain"),
        ("ü".encode() * 4_000, "long.txt", "text/plain"),  # cut in the middle of a character
    ],
)
async def test_what_a_file_is_is_told_by_its_bytes(
    api, org, customer, content, filename, content_type
):
    made = await attach(api, org, content, filename, to=customer)
    assert made.data["content_type"] == content_type


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (b"MZ\x90\x00" + b"\x00" * 50, "invoice.pdf"),
        (b"\x7fELF" + b"\x00" * 50, "a.png"),
        (b"<html><script>alert(1)</script></html>", "a.txt"),
        (b"  \n<svg xmlns='http://www.w3.org/2000/svg'/>", "a.csv"),
        (b"PK\x03\x04" + b"\x00" * 60, "a.zip"),
        (b"text that goes wrong later " * 8_000 + b"\x00", "a.txt"),
        (b"text in another encoding " * 8_000 + b"\xff", "a.txt"),
        (b"text that ends in the middle \xc3", "a.txt"),
    ],
)
async def test_what_is_not_on_the_list_is_refused(api, org, psql, customer, content, filename):
    refused = await attach(api, org, content, filename, to=customer)
    assert refused.refused == (415, "content_type_not_allowed")
    assert "image/png" in refused.details["allowed"]
    assert psql("select count(*) from attachment", org=org) == [(0,)]
    assert files_of(api, org) == []


async def test_a_name_loses_its_path_and_keeps_its_letters(api, org, customer):
    made = await attach(api, org, PDF, r"C:\\tmp\\Größe 10€.pdf", to=customer)
    assert made.data["filename"] == "Größe 10€.pdf"
    _, headers, _ = await load(api, f"/attachments/{made.data['id']}/content", org)
    told = headers["Content-Disposition"]
    assert told == (
        "attachment; filename=\"Gr__e 10_.pdf\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%2010%E2%82%AC.pdf"
    )


@pytest.mark.parametrize(
    ("content", "filename", "saved"),
    [
        (b"start calc", "invoice.bat", "invoice.bat.txt"),
        (b"hello <script>alert(1)</script>", "page.HTML", "page.HTML.txt"),
        (b"GIF89a=1//<script>", "a.hta", "a.hta.gif"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 50, "setup.msi", "setup.msi.xls"),
        (PDF, "none", "none.pdf"),
        (PDF, "A.PDF", "A.PDF"),
        (b"a note", "notes.log", "notes.log"),
    ],
)
async def test_what_is_saved_ends_as_what_it_is(api, org, customer, content, filename, saved):
    made = await attach(api, org, content, filename, to=customer)
    _, headers, _ = await load(api, f"/attachments/{made.data['id']}/content", org)
    assert headers["Content-Disposition"].startswith(f'attachment; filename="{saved}"; ')


@pytest.mark.parametrize(
    ("told", "filename"),
    [
        (b'filename="caf\xe9.txt"', "caf.txt"),
        (b"filename*=unicode_escape''a%5Cud800.txt", "a.txt"),
        (b"filename*=utf-8''a%E2%80%AEtxt.exe", "atxt.exe"),
        (b"filename*=utf-8''a%00%0D%0AX%3A%20y.txt", "aX: y.txt"),
        (b"filename*0=a'b", None),
    ],
)
async def test_a_name_that_is_none_breaks_nothing(api, org, customer, told, filename):
    body = form(b"a note")
    head = body.index(b"filename=")
    body = body[:head] + told + body[body.index(b"\r\n", head) :]
    made = await api.post(
        f"/attachments?entity=customer&entity_id={customer[1]}", org, content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )  # fmt: skip
    if filename is None:
        assert made.refused == (400, "malformed_multipart")
    else:
        assert (made.status, made.data["filename"]) == (201, filename)


async def test_the_same_file_again_is_refused_so_that_it_may_be_sent_again(api, org, customer):
    assert (await attach(api, org, to=customer)).status == 201
    again = await attach(api, org, to=customer)
    assert again.refused == (409, "attachment_content_taken")
    other = ("customer", (await api.post("/customers", org, {"name": "Bea"})).data["id"])
    assert (await attach(api, org, to=other)).status == 201


async def test_a_body_that_is_no_single_file_is_refused(api, org, customer):
    path = f"/attachments?entity=customer&entity_id={customer[1]}"
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    for body, headers, refused in (
        (b"{}", None, (415, "unsupported_media_type")),
        (b"nothing of the kind", kind, (400, "malformed_multipart")),
        (form(PNG)[:-200], kind, (400, "malformed_multipart")),
        (form(b""), kind, (422, "invalid_request")),
        (form(PNG, name="photo"), kind, (422, "invalid_request")),
        (
            form(PNG).removesuffix(b"--\r\n") + b"\r\n" + form(PDF),
            kind,
            (400, "malformed_multipart"),
        ),
        (
            form(PNG).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form(PDF),
            kind,
            (422, "invalid_request"),
        ),
        (form(PNG), {"Content-Type": "multipart/form-data"}, (400, "malformed_multipart")),
    ):
        answer = await api.post(path, org, content=body, headers=headers)
        assert answer.refused == refused, body[:100]
    assert files_of(api, org) == []


async def test_a_large_file_is_refused_while_it_is_sent(api_with, org, psql):
    api = await api_with(upload_max_bytes=100_000)
    to = ("customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"])
    assert (await attach(api, org, PNG[:8] + b"x" * 99_992, to=to)).status == 201
    refused = await attach(api, org, PNG[:8] + b"x" * 99_993, to=to)
    assert refused.refused == (413, "payload_too_large")
    assert refused.details == {"max_bytes": 100_000}
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield form(PNG).partition(b"\r\n--")[0]
        while sent < 50_000_000:
            sent += 10_000
            yield b"x" * 10_000
            await asyncio.sleep(0)

    url = f"{api.base_url}{PREFIX}/attachments?entity=customer&entity_id={to[1]}"
    headers = {
        "Authorization": f"Bearer {org.admin.token}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    async with api.session.post(url, data=endless(), headers=headers) as answer:
        assert answer.status == 413
    assert sent < 10_000_000
    assert len(files_of(api, org)) == 1


async def test_an_upload_that_drips_is_over_in_time(api_with, org):
    api = await api_with(upload_timeout_s=1)
    to = ("customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"])

    async def dripping() -> AsyncIterator[bytes]:
        yield form(PNG).partition(b"\r\n--")[0]
        for _ in range(300):
            yield b"x"
            await asyncio.sleep(0.1)

    url = f"{api.base_url}{PREFIX}/attachments?entity=customer&entity_id={to[1]}"
    headers = {
        "Authorization": f"Bearer {org.admin.token}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    began_s = time.monotonic()
    async with api.session.post(url, data=dripping(), headers=headers) as answer:
        assert answer.status == 408
    assert time.monotonic() - began_s < 20


async def test_there_is_a_quota_for_each_organisation(api, org, other_org, psql):
    to = ("customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"])
    made = await attach(api, org, to=to)
    used = psql("select file_count, size_bytes from attachment_usage", org=org)
    assert used == [(1, len(PNG))]
    psql("update attachment_usage set quota_bytes = size_bytes + 100", role="sofinance_owner",
         org=org)  # fmt: skip
    full = (409, "attachment_usage_within_quota")
    assert (await attach(api, org, PDF, to=to)).refused == full
    psql("update attachment_usage set quota_bytes = size_bytes", role="sofinance_owner", org=org)
    assert (await attach(api, org, b"x", "a.txt", to=to)).refused == full
    theirs = ("customer", (await api.post("/customers", other_org, {"name": "X"})).data["id"])
    assert (await attach(api, other_org, PDF, to=theirs)).status == 201
    assert (await api.delete(f"/attachments/{made.data['id']}", org)).status == 204
    assert psql("select file_count, size_bytes from attachment_usage", org=org) == [(0, 0)]
    assert (await attach(api, org, PDF, to=to)).status == 201


# -- who may ---------------------------------------------------------------------------------------


async def test_files_are_their_organisations_alone(api, org, other_org, customer):
    file = (await attach(api, org, to=customer)).data
    for path in (f"/attachments/{file['id']}", f"/attachments/{file['id']}/content",
                 f"/attachments?entity=customer&entity_id={customer[1]}"):  # fmt: skip
        assert (await api.get(path, other_org)).refused == (404, "not_found")
    assert (await attach(api, other_org, to=customer)).refused == (404, "not_found")
    assert (await api.delete(f"/attachments/{file['id']}", other_org)).status == 404
    assert (await api.post(f"/attachments/{file['id']}/signed-url", other_org, {})).status == 404


async def test_who_may_not_see_a_document_may_not_see_its_files(api, org, customer):
    clerk = org.member("INVENTORY_CLERK")  # may not see customers
    file = (await attach(api, org, to=customer)).data
    for answer in (
        await attach(api, clerk, to=customer),
        await api.get(f"/attachments/{file['id']}", clerk),
        await api.get(f"/attachments/{file['id']}/content", clerk),
        await api.get(f"/attachments?entity=customer&entity_id={customer[1]}", clerk),
        await api.delete(f"/attachments/{file['id']}", clerk),
        await api.post(f"/attachments/{file['id']}/signed-url", clerk, {}),
    ):
        assert answer.refused == (403, "forbidden")
        assert answer.details == {"permission": "customers:read"}
    cashier = org.member("CASHIER")
    assert (await api.get(f"/attachments/{file['id']}", cashier)).data == file


async def test_files_of_another_branchs_sale_are_not_there(api, org, psql):
    shop = await open_shop(api, org)
    side = (await api.post("/branches", org, {"name": "Side"})).data["id"]
    sale = ("sale", (await shop.sell(paid="11.00")).data["id"])
    file = (await attach(api, org, to=sale)).data
    cashier = org.member("CASHIER")
    body = {"email": cashier.email, "first_name": "C", "last_name": "D", "role": "CASHIER",
            "branch_ids": [side]}  # fmt: skip
    assert (await api.put(f"/users/{cashier.id}", org, body)).status == 200
    for answer in (
        await api.get(f"/attachments/{file['id']}", cashier),
        await api.get(f"/attachments?entity=sale&entity_id={sale[1]}", cashier),
        await attach(api, cashier, PDF, to=sale),
        await api.delete(f"/attachments/{file['id']}", cashier),
    ):
        assert answer.refused == (404, "not_found")
    seen = psql("select count(*) from attachment", org=org, branches=f"{{{side}}}")
    assert seen == [(0,)]


async def test_what_is_done_is_audited_and_says_no_key(api, org, psql, customer):
    file = (await attach(api, org, to=customer)).data
    await api.delete(f"/attachments/{file['id']}", org)
    rows = psql(
        "select action, entity_id, after, before from audit_log where entity_type = 'attachments'"
        " order by id", org=org,
    )  # fmt: skip
    assert [row[:2] for row in rows] == [
        ("attachments.attach_file", file["id"]), ("attachments.delete_attachment", file["id"]),
    ]  # fmt: skip
    assert rows[0][2]["sha256"] == rows[1][3]["sha256"] == file["sha256"]
    assert "object_key" not in json.dumps([row[2:] for row in rows])


# -- signed links ----------------------------------------------------------------------------------


async def test_a_link_lets_anybody_download_until_it_is_over(api, org, customer, monkeypatch):
    file = (await attach(api, org, to=customer)).data
    link = (await api.post(f"/attachments/{file['id']}/signed-url", org, {})).data
    assert (link["expires_in"], link["one_time"]) == (60, False)
    for _ in range(2):
        status, headers, content = await load(api, link["url"])
        assert (status, content) == (200, PNG)
        assert headers["Cache-Control"] == "no-store"
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s - 61)
    old = (await api.post(f"/attachments/{file['id']}/signed-url", org, {})).data
    monkeypatch.undo()
    refused = await api.get(old["url"].removeprefix(PREFIX))
    assert refused.refused == (401, "signed_url_expired")


async def test_a_one_time_link_is_good_once_over_many_workers(api_with, org, psql):
    first, second = await api_with(), await api_with()
    to = ("customer", (await first.post("/customers", org, {"name": "Carla"})).data["id"])
    file = (await attach(first, org, to=to)).data
    body = {"one_time": True, "ttl_seconds": 600}
    link = (await first.post(f"/attachments/{file['id']}/signed-url", org, body)).data
    answers = await asyncio.gather(
        *(load((first, second)[i % 2], link["url"]) for i in range(RACERS))
    )
    assert sorted(status for status, _, _ in answers) == [200] + [410] * (RACERS - 1)
    refused = await second.get(link["url"].removeprefix(PREFIX))
    assert refused.refused == (410, "signed_url_used")
    assert psql("select count(*) from signed_url_use", org=org) == [(1,)]


async def test_a_link_that_was_changed_is_refused(api, org, other_org, customer):
    file = (await attach(api, org, to=customer)).data
    url = (await api.post(f"/attachments/{file['id']}/signed-url", org, {})).data["url"]
    path, _, token = url.removeprefix(PREFIX).partition("token=")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    forged = raw[:32] + raw[32:].replace(f"[{org.id},".encode(), f"[{other_org.id},".encode())
    for wrong in (
        base64.urlsafe_b64encode(forged).decode().rstrip("="), token[:-4], "x" * 200, "ä", "=",
    ):  # fmt: skip
        answer = await api.get(f"{path}token={wrong}")
        assert answer.refused == (401, "signed_url_invalid")
    assert (await api.get(path.rstrip("?"))).refused == (422, "invalid_request")


async def test_a_link_dies_with_its_file(api, org, customer):
    file = (await attach(api, org, to=customer)).data
    link = (await api.post(f"/attachments/{file['id']}/signed-url", org, {})).data
    await api.delete(f"/attachments/{file['id']}", org)
    assert (await api.get(link["url"].removeprefix(PREFIX))).refused == (404, "not_found")


async def test_links_need_a_key(api_with, org):
    api = await api_with(data_encryption_key="")
    to = ("customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"])
    file = (await attach(api, org, to=to)).data
    refused = await api.post(f"/attachments/{file['id']}/signed-url", org, {})
    assert refused.refused == (503, "encryption_not_configured")


# -- the janitor -----------------------------------------------------------------------------------


@pytest.fixture
async def own_api(api_with: MakeApi, settings: Settings) -> Api:
    """An application over the directory that the janitor of this test cleans."""
    return await api_with()


@pytest.fixture
async def own_customer(own_api: Api, org: Org) -> tuple[str, int]:
    """A customer of that application."""
    return "customer", (await own_api.post("/customers", org, {"name": "Carla"})).data["id"]


async def test_a_removed_file_leaves_the_store_a_little_later(
    own_api, org, own_customer, psql, database
):
    file = (await attach(own_api, org, to=own_customer)).data
    assert len(files_of(own_api, org)) == 1
    assert (await own_api.delete(f"/attachments/{file['id']}", org)).status == 204
    assert (await own_api.get(f"/attachments/{file['id']}/content", org)).status == 404
    assert len(files_of(own_api, org)) == 1
    assert "removed" in await clean_storage(database)
    assert files_of(own_api, org) == []
    assert psql("select count(*) from storage_tombstone", org=org) == [(0,)]


async def test_an_upload_whose_transaction_fails_is_found_and_removed(
    own_api, org, own_customer, psql, database
):
    assert (await attach(own_api, org, to=own_customer)).status == 201
    assert (await attach(own_api, org, to=own_customer)).status == 409
    assert len(files_of(own_api, org)) == 2
    await clean_storage(database)
    assert len(files_of(own_api, org)) == 2  # it may still be on its way
    due(psql, org)
    await clean_storage(database)
    assert len(files_of(own_api, org)) == 1
    listed = await own_api.get(f"/attachments?entity=customer&entity_id={own_customer[1]}", org)
    (left,) = listed.data["items"]
    _, _, content = await load(own_api, f"/attachments/{left['id']}/content", org)
    assert content == PNG


async def test_an_object_that_cannot_be_removed_is_given_up_after_five_attempts(
    own_api, org, own_customer, psql, database
):
    file = (await attach(own_api, org, to=own_customer)).data
    (path,) = files_of(own_api, org)
    await own_api.delete(f"/attachments/{file['id']}", org)
    path.unlink()
    path.mkdir()  # what is a directory is not unlinked
    for attempt in range(1, 6):
        due(psql, org)
        if attempt < 5:
            await clean_storage(database)
        else:
            with pytest.raises(JobFailedError, match="1 are given up"):
                await clean_storage(database)
        state = psql(
            "select attempt_count, given_up_at is not null, last_error from storage_tombstone",
            org=org,
        )
        assert state[0][:2] == (attempt, attempt == 5)
        assert "directory" in state[0][2]
    due(psql, org)
    with pytest.raises(JobFailedError, match="given up"):
        await clean_storage(database)
    assert psql("select attempt_count from storage_tombstone", org=org) == [(5,)]
    psql("delete from storage_tombstone", org=org)  # other tests' janitors would fail, too


def orphans(settings: Settings, org: Org, *, days: int, count: int = 1) -> list[Path]:
    """Put objects into the store that no row names, so many days old."""
    made = []
    for _ in range(count):
        path = Path(settings.storage_dir) / f"org/{org.id}/attachments/{uuid.uuid4().hex}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"nobody's")
        at_s = time.time() - days * 86_400
        os.utime(path, (at_s, at_s))
        made.append(path)
    return made


async def test_objects_that_no_row_names_go_when_they_are_old(
    own_api, org, own_customer, psql, database
):
    settings = database.settings
    file = (await attach(own_api, org, to=own_customer)).data
    (known,) = files_of(own_api, org)
    os.utime(known, (0, 0))
    (waiting,) = orphans(settings, org, days=40)
    psql(
        "insert into storage_tombstone (org_id, object_key, due_at) values"
        f" ({org.id}, 'org/{org.id}/attachments/{waiting.name}', now() + '1 hour')", org=org,
    )  # fmt: skip
    (young,) = orphans(settings, org, days=29)
    foreign = known.with_name("somebody-elses.txt")
    foreign.write_bytes(b"x")
    os.utime(foreign, (0, 0))
    old = orphans(settings, org, days=31, count=3)
    assert (await find_orphans(database)).startswith("3 of ")
    assert (await find_orphans(database)).startswith("0 of ")
    await clean_storage(database)
    assert [path.exists() for path in old] == [False] * 3
    assert all(path.exists() for path in (known, waiting, young, foreign))
    assert (await own_api.get(f"/attachments/{file['id']}", org)).status == 200


async def test_where_there_are_more_than_a_list_has_all_have_their_turn(
    own_api, org, database, monkeypatch
):
    assert files_of(own_api, org) == []
    monkeypatch.setattr("sofinance.jobs.janitor.LIST_COUNT_MAX", 2)
    monkeypatch.setattr("sofinance.jobs.janitor.PAGE_COUNT_MAX", 1)
    old = orphans(database.settings, org, days=31, count=9)
    for _ in range(60):
        told = await find_orphans(database)
        assert int(told.split(" ")[2]) <= 4
        await clean_storage(database)
    assert [path.exists() for path in old] == [False] * 9


async def test_orphans_stay_where_that_is_wanted(settings, org):
    database = Database(replace(settings, retention_orphan_days=0))
    await database.open()
    (old,) = orphans(settings, org, days=4_000)
    assert "every file stays" in await find_orphans(database)
    await database.close()
    assert old.exists()


# -- a bucket --------------------------------------------------------------------------------------


async def test_files_are_kept_in_a_bucket(api_with, settings, s3: S3Server, org, psql):
    api = await api_with(**s3.settings())
    to = ("customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"])
    file = (await attach(api, org, to=to)).data
    _, _, content = await load(api, f"/attachments/{file['id']}/content", org)
    assert content == PNG
    link = (await api.post(f"/attachments/{file['id']}/signed-url", org, {"one_time": True})).data
    assert (await load(api, link["url"]))[2] == PNG
    health = await api.get("/health", prefix="")
    assert health.body["data"]["checks"]["storage"] == "healthy"
    await api.delete(f"/attachments/{file['id']}", org)
    database = Database(replace(settings, **s3.settings()))
    await database.open()
    await clean_storage(database)
    await database.close()
    assert psql("select count(*) from storage_tombstone", org=org) == [(0,)]


@pytest.fixture
def s3_down(s3: S3Server) -> Iterator[S3Server]:
    """The bucket's server, which is there again after the test."""
    yield s3
    s3.stop()
    s3.start()


async def test_without_the_bucket_sales_go_on_and_files_wait(
    api_with, settings, s3_down: S3Server, org, psql
):
    api = await api_with(**s3_down.settings())
    shop = await open_shop(api, org)
    first = ("sale", (await shop.sell(paid="11.00")).data["id"])
    file = (await attach(api, org, to=first)).data
    s3_down.stop()
    sale = await shop.sell(paid="11.00")
    assert sale.status == 201
    began_s = time.monotonic()
    refused = await attach(api, org, PDF, to=("sale", sale.data["id"]))
    assert refused.refused == (503, "storage_unavailable")
    assert refused.headers["Retry-After"]
    assert (await api.get(f"/attachments/{file['id']}/content", org)).status == 503
    assert time.monotonic() - began_s < 30
    assert (await api.delete(f"/attachments/{file['id']}", org)).status == 204
    health = await api.get("/health", prefix="")
    assert (health.status, health.body["data"]["status"]) == (200, "degraded")
    assert health.body["data"]["checks"]["storage"] != "healthy"
    assert (await api.get("/readyz", prefix="")).status == 200
    due(psql, org)
    database = Database(replace(settings, **s3_down.settings()))
    await database.open()
    with pytest.raises(JobFailedError, match="away"):
        await clean_storage(database)
    tried = psql("select max(attempt_count) from storage_tombstone", org=org)
    assert tried == [(0,)]
    s3_down.start()
    await clean_storage(database)
    await database.close()
    assert psql("select count(*) from storage_tombstone", org=org) == [(0,)]
    assert psql("select count(*) from attachment", org=org) == [(0,)]


async def test_a_client_that_goes_away_leaves_nothing_open(api_with, org):
    api = await api_with()
    to = ("customer", (await api.post("/customers", org, {"name": "Carla"})).data["id"])
    file = (await attach(api, org, PDF + b"x" * 900_000, to=to)).data
    headers = {"Authorization": f"Bearer {org.admin.token}"}
    url = f"{api.base_url}{PREFIX}/attachments/{file['id']}/content"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers=headers) as answer:
            assert await answer.content.read(10) == PDF[:10]
        async with session.head(url, headers=headers) as answer:
            assert answer.headers["Content-Length"] == str(file["size_bytes"])
            assert await answer.read() == b""
    assert (await load(api, f"/attachments/{file['id']}/content", org))[0] == 200

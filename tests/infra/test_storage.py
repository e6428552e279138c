"""The store of files: a directory and a bucket keep the same promises."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import TYPE_CHECKING

import pytest

from sofinance.infra.circuit import OPEN
from sofinance.infra.storage import (
    LocalStorage,
    ObjectMissingError,
    Storage,
    StorageError,
    checked,
)
from sofinance.infra.storage_s3 import PART_BYTES, S3Storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.s3_server import S3Server


@pytest.fixture(params=["local", "s3"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    if request.param == "local":
        yield LocalStorage(tmp_path / "files")
        return
    target = request.getfixturevalue("s3").target(prefix=f"{tmp_path.name}/")
    made = S3Storage(target)
    yield made
    await made.aclose()


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def broken(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise KeyError("the sender went away")


async def read(storage: Storage, key: str) -> bytes:
    reading = await storage.read(key)
    async with contextlib.aclosing(reading):
        found = b"".join([chunk async for chunk in reading])
    assert len(found) == reading.size_bytes
    return found


async def keys(storage: Storage, prefix: str = "", **page: object) -> list[str]:
    return [found.key for found in await storage.list_objects(prefix, **page)]


async def test_what_was_put_is_read(storage):
    stored = await storage.put("org/1/a.txt", stream(b"one ", b"two"))
    assert (stored.size_bytes, stored.sha256) == (7, hashlib.sha256(b"one two").digest())
    assert await read(storage, "org/1/a.txt") == b"one two"


async def test_an_empty_object_is_one(storage):
    await storage.put("org/1/empty", stream())
    assert await read(storage, "org/1/empty") == b""


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 5])
async def test_large_objects_are_sent_in_parts(storage, size):
    chunk = bytes(range(256)) * 4_096
    content = (chunk * (size // len(chunk) + 1))[:size]
    pieces = (content[i : i + 700_000] for i in range(0, size, 700_000))
    stored = await storage.put("org/1/large", stream(*pieces))
    assert stored.size_bytes == size
    assert hashlib.sha256(await read(storage, "org/1/large")).digest() == stored.sha256


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
async def test_a_stream_that_breaks_off_leaves_nothing(storage, size):
    with pytest.raises(KeyError):
        await storage.put("org/1/half", broken(b"x" * size))
    assert await keys(storage) == []
    with pytest.raises(ObjectMissingError):
        await storage.read("org/1/half")


async def test_what_is_deleted_is_gone_and_may_be_deleted_again(storage):
    await storage.put("org/1/a", stream(b"a"))
    await storage.delete("org/1/a")
    await storage.delete("org/1/a")
    with pytest.raises(ObjectMissingError):
        await storage.read("org/1/a")


async def test_lists_go_by_key_and_by_page(storage):
    for key in ("org/2/a", "org/1/b", "org/1/a-1", "org/1/a/1", "org/10/a"):
        await storage.put(key, stream(key.encode()))
    assert await keys(storage, "org/1/") == ["org/1/a-1", "org/1/a/1", "org/1/b"]
    assert await keys(storage, "org/1/", limit=2) == ["org/1/a-1", "org/1/a/1"]
    assert await keys(storage, "org/1/", after="org/1/a/1") == ["org/1/b"]
    assert [found.size_bytes for found in await storage.list_objects("org/2")] == [7]


async def test_a_probe_finds_it_alive(storage):
    await storage.probe()
    assert await keys(storage) == []


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../secret", "org/../../secret", "org//a", "org/./a", "org/", "a b", "ä",
     "a\x00b", "a\n", "org\\..\\a", "x" * 501],
)  # fmt: skip
async def test_no_key_leads_out_of_the_store(storage, key):
    with pytest.raises(ValueError, match="no key"):
        checked(key)
    with pytest.raises(ValueError, match="no key"):
        await storage.put(key, stream(b"a"))
    with pytest.raises(ValueError, match="no key"):
        await storage.read(key)
    with pytest.raises(ValueError, match="no key"):
        await storage.delete(key)


# -- a directory -----------------------------------------------------------------------------------


async def test_a_link_does_not_lead_out_of_the_directory(tmp_path):
    storage = LocalStorage(tmp_path / "files")
    await storage.put("org/1/a", stream(b"a"))
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "files" / "out").symlink_to(tmp_path)
    (tmp_path / "files" / "org" / "link").symlink_to(secret)
    for key in ("out/secret", "out/new"):
        with pytest.raises(ValueError, match="leads out"):
            await storage.put(key, stream(b"x"))
        with pytest.raises(ValueError, match="leads out"):
            await storage.delete(key)
    with pytest.raises(StorageError):
        await storage.read("org/link")
    assert secret.read_text() == "mine"


async def test_only_its_owner_reads_the_directory(tmp_path):
    storage = LocalStorage(tmp_path / "files")
    await storage.put("org/1/a", stream(b"a"))
    assert (tmp_path / "files" / "org").stat().st_mode & 0o077 == 0
    assert (tmp_path / "files" / "org" / "1" / "a").stat().st_mode & 0o077 == 0


async def test_a_directory_that_is_none_is_told_as_a_store_that_is_away(tmp_path):
    (tmp_path / "files").write_text("a file")
    storage = LocalStorage(tmp_path / "files")
    for attempt in (storage.probe(), storage.put("a", stream(b"a"))):
        with pytest.raises(StorageError):
            await attempt


# -- a bucket --------------------------------------------------------------------------------------


async def test_a_bucket_that_is_not_there_is_told(s3: S3Server):
    async with contextlib.aclosing(S3Storage(s3.target(bucket="nobodys"))) as storage:
        with pytest.raises(StorageError, match="NoSuchBucket"):
            await storage.put("org/1/a", stream(b"a"))
        with pytest.raises(StorageError):
            await storage.probe()


async def test_a_server_that_is_down_opens_the_circuit_and_comes_back(s3: S3Server):
    async with contextlib.aclosing(S3Storage(s3.target())) as storage:
        await storage.probe()
        s3.stop()
        try:
            for _ in range(4):
                with pytest.raises(StorageError, match="failed"):
                    await storage.delete("org/1/a")
            assert storage.circuit.state == OPEN
            began_s = time.monotonic()
            with pytest.raises(StorageError, match="circuit"):
                await storage.put("org/1/a", stream(b"a"))
            assert time.monotonic() - began_s < 5
        finally:
            s3.start()
        await storage.probe()  # past the circuit


async def test_a_server_that_hangs_costs_a_bounded_time(s3: S3Server):
    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = s3.target(
        endpoint_url=f"http://127.0.0.1:{port}", read_timeout_s=1, attempt_count_max=1
    )
    began_s = time.monotonic()
    async with contextlib.aclosing(S3Storage(target)) as storage:
        with pytest.raises(StorageError, match="failed"):
            await storage.put("org/1/a", stream(b"a"))
    assert time.monotonic() - began_s < 20
    server.close()


async def test_keys_and_secrets_are_in_no_text(s3: S3Server):
    target = s3.target(secret_access_key="very-secret")
    assert "very-secret" not in repr(target)

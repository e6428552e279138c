"""Files in a bucket that speaks S3: AWS, MinIO, R2 and others.

Every call is bounded: three seconds to connect, ten without a byte, a few attempts, a limit over
all of it, and a circuit that opens when the store stops answering.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from sofinance.infra import tracing
from sofinance.infra.circuit import Circuit, CircuitOpenError
from sofinance.infra.storage import (
    CHUNK_BYTES,
    LIST_COUNT_MAX,
    Found,
    ObjectMissingError,
    Reading,
    Storage,
    StorageError,
    Stored,
    checked,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from sofinance.config import Settings

# S3's least for a part that is not the last; also what one upload holds in memory.
PART_BYTES = 8 << 20
CONNECTION_COUNT_MAX = 50
# Over all attempts of one call. A part of 8 MiB needs 2 Mbit/s.
CALL_TIMEOUT_S = 40
FAILURE_COUNT_MAX, WINDOW_S, RECOVERY_S = 4, 60, 20
MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
AWAY = (StorageError,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bucket, and how to speak to it; without keys, those of the machine's role are used."""

    bucket: str
    endpoint_url: str = ""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    prefix: str = ""
    connect_timeout_s: float = 3
    read_timeout_s: float = 10
    attempt_count_max: int = 4


def target_of(settings: Settings) -> Target:
    """Return the bucket of the settings."""
    return Target(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key,
        prefix=settings.s3_prefix,
        connect_timeout_s=settings.s3_connect_timeout_s,
        read_timeout_s=settings.s3_read_timeout_s,
        attempt_count_max=settings.s3_attempts,
    )


def send_at_once(params: dict[str, Any], **_rest: Any) -> None:
    """Do not wait to be told to go on: no time limit holds while one waits for that."""
    params["headers"].pop("Expect", None)


class S3Storage(Storage):
    """A bucket; its client is made by the first call and belongs to that call's loop."""

    name = "s3"

    def __init__(self, target: Target, *, circuit: Circuit | None = None) -> None:
        self._target = target
        self._stack = contextlib.AsyncExitStack()
        self._made: asyncio.Lock = asyncio.Lock()
        self._client: Any = None
        self.circuit = circuit or Circuit(
            "storage", failure_count_max=FAILURE_COUNT_MAX, window_s=WINDOW_S,
            recovery_s=RECOVERY_S, counts=AWAY,
        )  # fmt: skip

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str = "application/octet-stream",
    ) -> Stored:
        """Write an object: a small one in one call, a larger one in parts that become one."""
        where = {"Bucket": self._target.bucket, "Key": self._key(key)}
        digest, size_bytes = hashlib.sha256(), 0
        upload: _Upload | None = None
        try:
            async for part, is_last in _parts(chunks):
                digest.update(part)
                size_bytes += len(part)
                if upload is None and is_last:
                    await self._call("put_object", Body=part, ContentType=content_type, **where)
                    break
                if upload is None:
                    begun = await self._call(
                        "create_multipart_upload", ContentType=content_type, **where
                    )
                    upload = _Upload({**where, "UploadId": begun["UploadId"]})
                await self._send_part(upload, part)
            if upload is not None:
                await self._call(
                    "complete_multipart_upload",
                    MultipartUpload={"Parts": upload.parts}, **upload.where,
                )  # fmt: skip
        except BaseException:
            if upload is not None:
                # Parts of an upload that never ends cost money; the bucket's own rule is the rest.
                with contextlib.suppress(StorageError):
                    await self._call("abort_multipart_upload", **upload.where)
            raise
        return Stored(size_bytes, digest.digest())

    async def read(self, key: str) -> Reading:
        """Open an object."""
        found = await self._call("get_object", Bucket=self._target.bucket, Key=self._key(key))
        return _S3Reading(found)

    async def delete(self, key: str) -> None:
        """Remove an object; where the bucket keeps versions, they go by its own rule."""
        await self._call("delete_object", Bucket=self._target.bucket, Key=self._key(key))

    async def list_objects(
        self, prefix: str = "", *, after: str = "", limit: int = LIST_COUNT_MAX
    ) -> list[Found]:
        """List objects by key, at most a thousand."""
        length = len(self._target.prefix)
        answer = await self._call(
            "list_objects_v2", Bucket=self._target.bucket, Prefix=self._target.prefix + prefix,
            MaxKeys=min(limit, LIST_COUNT_MAX),
            **({"StartAfter": self._target.prefix + after} if after else {}),
        )  # fmt: skip
        return [
            Found(found["Key"][length:], found["Size"], found["LastModified"])
            for found in answer.get("Contents", [])
        ]

    async def probe(self) -> None:
        """Ask whether the bucket is there; past the circuit, since it is asked by whoever looks."""
        await self._ask("head_bucket", Bucket=self._target.bucket)

    async def aclose(self) -> None:
        """Close the client."""
        self._client = None
        await self._stack.aclose()

    def _key(self, key: str) -> str:
        return self._target.prefix + checked(key)

    async def _send_part(self, upload: _Upload, part: bytes) -> None:
        number = len(upload.parts) + 1
        sent = await self._call("upload_part", PartNumber=number, Body=part, **upload.where)
        upload.parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    async def _call(self, operation: str, **values: Any) -> Any:
        try:
            async with self.circuit:
                with tracing.timed(f"s3 {operation}"):
                    return await self._ask(operation, **values)
        except CircuitOpenError as error:
            raise StorageError(str(error)) from None

    async def _ask(self, operation: str, **values: Any) -> Any:
        client = await self._connected()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await getattr(client, operation)(**values)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in MISSING and operation == "get_object":
                raise ObjectMissingError(values["Key"]) from None
            # Its code only: what it says may quote keys and signatures.
            raise StorageError(f"{operation} was refused: {code}") from None
        except (BotoCoreError, HTTPClientError, OSError, TimeoutError) as error:
            raise StorageError(f"{operation} failed: {type(error).__name__}") from None

    async def _connected(self) -> Any:
        async with self._made:
            if self._client is None:
                target = self._target
                self._client = await self._stack.enter_async_context(
                    get_session().create_client(
                        "s3",
                        endpoint_url=target.endpoint_url or None,
                        region_name=target.region,
                        aws_access_key_id=target.access_key_id or None,
                        aws_secret_access_key=target.secret_access_key or None,
                        config=AioConfig(
                            connect_timeout=target.connect_timeout_s,
                            read_timeout=target.read_timeout_s,
                            retries={"total_max_attempts": target.attempt_count_max,
                                     "mode": "standard"},
                            max_pool_connections=CONNECTION_COUNT_MAX,
                            # A bucket's name in the host needs a certificate and a DNS for it.
                            s3={"addressing_style": "path" if target.endpoint_url else "auto"},
                            signature_version="s3v4",
                            # Others than AWS do not know the checksums that it wants by default.
                            request_checksum_calculation="when_required",
                            response_checksum_validation="when_required",
                        ),
                    )
                )  # fmt: skip
                self._client.meta.events.register_last("before-call.s3", send_at_once)
            return self._client


@dataclass(slots=True)
class _Upload:
    """An upload in parts that has begun."""

    where: dict[str, str]
    parts: list[dict[str, Any]] = field(default_factory=list)


async def _parts(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Gather a stream into parts, and say which is the last; there is always one."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        while len(waiting) > PART_BYTES:
            yield bytes(waiting[:PART_BYTES]), False
            del waiting[:PART_BYTES]
    yield bytes(waiting), True


class _S3Reading(Reading):
    def __init__(self, found: Any) -> None:
        self.size_bytes = found["ContentLength"]
        self._body = found["Body"]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._body.read(CHUNK_BYTES):
                yield chunk
        except (BotoCoreError, HTTPClientError, OSError, TimeoutError) as error:
            raise StorageError(f"an object broke off: {type(error).__name__}") from None

    async def aclose(self) -> None:
        self._body.close()

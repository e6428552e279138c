"""A bucket of S3, or of anything that speaks its language, as a place of backups.

What is written travels in parts as it comes, and is there when all of them are: nothing is held but
one part. What is read is taken up where it broke off, from the very same object. Every wait and
every retry has a bound; when the bucket does not answer again and again, it is left alone for a
while.
"""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sofinance.backups.places import (
    PARTIAL_AGE_MAX,
    Entry,
    MissingError,
    Place,
    PlaceError,
    ThereError,
)
from sofinance.infra.command import EXIT_CANNOT_RUN, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of one connection, and of the silence within an answer.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 30
# How often one request is tried, with waits that double and vary; and a download taken up again.
TRIES_MAX, RESUMES_MAX = 4, 4
# S3 takes 10,000 parts; ever larger ones make room for 600 GB, in 128 MiB of memory at most.
PART_BYTES, PARTS_OF_A_SIZE = 16 << 20, 2_500
# Requests that failed in a row, all their tries, till the bucket is left alone; and for how long.
FAILURES_MAX, LEFT_ALONE_S = 3, 30.0
NO_SUCH = frozenset({"404", "NoSuchKey", "NotFound"})
IS_THERE = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the bucket is reached; without keys, those of the environment or of the machine."""

    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    read_timeout_s: float = READ_TIMEOUT_S


class Breaker:
    """Lets no request through for a while after several failed in a row."""

    def __init__(self) -> None:
        self._failures, self._until_s = 0, 0.0

    def admit(self, location: str) -> None:
        """Raise PlaceError while the bucket is left alone."""
        if self._failures >= FAILURES_MAX and time.monotonic() < self._until_s:
            raise PlaceError(f"{location} did not answer lately and is left alone for a while.")

    def note(self, *, failed: bool) -> None:
        """Count how a request ended."""
        self._failures = self._failures + 1 if failed else 0
        self._until_s = time.monotonic() + LEFT_ALONE_S if failed else 0.0


class Bucket(Place):
    """A prefix in a bucket."""

    def __init__(
        self, bucket: str, prefix: str, client: Any, breaker: Breaker | None = None
    ) -> None:
        self._bucket, self._prefix, self._client = bucket, prefix, client
        self.breaker = breaker or Breaker()

    @classmethod
    def at(cls, url: str, access: Access) -> Bucket:
        """Return the place of ``s3://bucket/prefix``; nothing is asked yet."""
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        return cls(parts.netloc, f"{prefix}/" if prefix else "", connected(access))

    def __truediv__(self, name: str) -> Bucket:
        return Bucket(self._bucket, f"{self._prefix}{name}/", self._client, self.breaker)

    def location(self, name: str = "") -> str:
        """Return the URL."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def key(self, name: str) -> str:
        """Return the key of an object."""
        return self._prefix + name

    def entries(self) -> list[Entry]:
        """Return the objects right below the prefix."""
        found, more = [], {"ContinuationToken": ""}
        while more:
            asked = {key: token for key, token in more.items() if token}
            page = self.ask("list_objects_v2", "", Prefix=self._prefix, Delimiter="/", **asked)
            for each in page.get("Contents", ()):
                name = each["Key"].removeprefix(self._prefix)
                found.append(Entry(name, each["Size"], each["LastModified"].astimezone(UTC)))
            token = page.get("NextContinuationToken")
            more = {"ContinuationToken": token} if token else {}
        return found

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """Open an object."""
        raw = _Download(self, name, self.ask("get_object", name, Key=self.key(name)))
        with raw, io.BufferedReader(raw, 1 << 20) as file:
            yield file

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[_Upload]:
        """Send an object in parts; one that breaks off leaves nothing."""
        if self.has(name):
            raise ThereError(self.location(name))
        upload = _Upload(self, name)
        try:
            yield upload
            upload.finish()
        except BaseException:
            # What cannot be taken back now is by clear(), in some days.
            with contextlib.suppress(PlaceError):
                upload.abort()
            raise

    def remove(self, name: str) -> None:
        """Delete an object."""
        self.ask("delete_object", name, Key=self.key(name))

    def has(self, name: str) -> bool:
        """Say whether the object is there."""
        try:
            self.ask("head_object", name, Key=self.key(name))
        except MissingError:
            return False
        return True

    def clear(self, *, now: datetime) -> None:
        """Abort uploads that were begun days ago."""
        page = self.ask("list_multipart_uploads", "", Prefix=self._prefix)
        for each in page.get("Uploads", ()):
            if now - each["Initiated"].astimezone(UTC) > PARTIAL_AGE_MAX:
                self.ask("abort_multipart_upload", "", Key=each["Key"], UploadId=each["UploadId"])

    def ask(self, operation: str, name: str, **asked: Any) -> Any:
        """Ask one thing; raises MissingError, ThereError or PlaceError."""
        import botocore.exceptions as refusals  # noqa: PLC0415 - not needed for directories

        self.breaker.admit(self.location())
        try:
            answer = getattr(self._client, operation)(Bucket=self._bucket, **asked)
        except refusals.ClientError as error:
            said = error.response.get("Error", {})
            code = str(said.get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            self.breaker.note(failed=status >= 500)
            if code in NO_SUCH and name:
                raise MissingError(self.location(name)) from None
            if code in IS_THERE and operation != "get_object":
                raise ThereError(self.location(name)) from None
            raise PlaceError(
                f"{self.location(name)}: {operation} is refused: {code} {said.get('Message', '')}"
            ) from None
        except (refusals.BotoCoreError, refusals.HTTPClientError, OSError) as error:
            self.breaker.note(failed=True)
            raise PlaceError(f"{self.location(name)} does not answer: {error}") from None
        self.breaker.note(failed=False)
        return answer


class _Upload:
    """An object that is being written: small ones in one request, others in parts."""

    def __init__(self, place: Bucket, name: str) -> None:
        self._place, self._name = place, name
        self._key = place.key(name)
        self._held = bytearray()
        self._id = ""
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes, /) -> int:
        """Hold the bytes, and send them when there are enough for a part."""
        self._held += data
        while len(self._held) > (size := PART_BYTES << (len(self._parts) // PARTS_OF_A_SIZE)):
            if not self._id:
                self._id = self._ask("create_multipart_upload")["UploadId"]
            part = bytes(self._held[:size])
            del self._held[:size]
            self._send(part)
        return len(data)

    def finish(self) -> None:
        """Make the object: all of it at once, and only where there is none."""
        if not self._id:
            self._ask("put_object", Body=bytes(self._held), IfNoneMatch="*")
            return
        self._send(bytes(self._held))
        self._ask(
            "complete_multipart_upload", UploadId=self._id, IfNoneMatch="*",
            MultipartUpload={"Parts": self._parts},
        )  # fmt: skip

    def abort(self) -> None:
        """Take back what was sent."""
        if self._id:
            self._ask("abort_multipart_upload", UploadId=self._id)

    def _send(self, part: bytes) -> None:
        number = len(self._parts) + 1
        sent = self._ask("upload_part", UploadId=self._id, PartNumber=number, Body=part)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    def _ask(self, operation: str, **asked: Any) -> Any:
        return self._place.ask(operation, self._name, Key=self._key, **asked)


class _Download(io.RawIOBase):
    """An object that is read once, from its beginning to its end; taken up where it broke off."""

    def __init__(self, place: Bucket, name: str, answer: Any) -> None:
        self._place, self._name = place, name
        self._at, self._resumes = 0, 0
        self._body, self._etag = answer["Body"], answer["ETag"]
        self._size = answer["ContentLength"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import botocore.exceptions as refusals  # noqa: PLC0415 - not needed for directories

        while self._at < self._size:
            why = "it ended too soon"
            try:
                chunk = self._body.read(len(buffer))
            except (refusals.BotoCoreError, refusals.HTTPClientError, OSError) as error:
                chunk, why = b"", str(error)
            if chunk:
                self._at += len(chunk)
                buffer[: len(chunk)] = chunk
                return len(chunk)
            self._resume(why)
        return 0

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._body.close()
        super().close()

    def _resume(self, why: str) -> None:
        """Ask for what is left; PlaceError when that was asked often enough."""
        self._body.close()
        self._resumes += 1
        location = self._place.location(self._name)
        if self._resumes > RESUMES_MAX:
            self._place.breaker.note(failed=True)
            raise PlaceError(f"{location} breaks off at byte {self._at} again and again: {why}")
        answer = self._place.ask(
            "get_object", self._name, Key=self._place.key(self._name),
            Range=f"bytes={self._at}-", IfMatch=self._etag,
        )  # fmt: skip
        if self._at + answer["ContentLength"] != self._size:
            raise PlaceError(f"{location} has changed while it was read.")
        self._body = answer["Body"]


def connected(access: Access) -> Any:
    """Return a client of S3; SetupError where botocore is not installed."""
    try:
        from botocore.config import Config  # noqa: PLC0415 - large, and for S3 alone
        from botocore.session import get_session  # noqa: PLC0415
    except ImportError:
        raise SetupError(
            "For backups in S3 install its client: pip install 'sofinance[s3]'.",
            exit_code=EXIT_CANNOT_RUN,
        ) from None
    if bool(access.access_key_id) != bool(access.secret_access_key):
        raise SetupError("BACKUP_S3_ACCESS_KEY_ID and BACKUP_S3_SECRET_ACCESS_KEY go together.")
    given = {
        "endpoint_url": access.endpoint,
        "aws_access_key_id": access.access_key_id,
        "aws_secret_access_key": access.secret_access_key,
    }
    return get_session().create_client(
        "s3",
        region_name=access.region or "us-east-1",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=access.read_timeout_s,
            retries={"total_max_attempts": TRIES_MAX, "mode": "standard"},
            # One host with paths, as MinIO and others have; Amazon's take both.
            s3={"addressing_style": "path" if access.endpoint else "auto"},
            # Others than Amazon do not know the checksums that it wants; ours are read back.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **{name: value for name, value in given.items() if value},
    )

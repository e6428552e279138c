"""A directory and a bucket keep the same promises; and a bucket whose server does its worst."""

from __future__ import annotations

import hashlib
import os
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.backups import point_in_time, s3, store, wal
from sofinance.backups.places import Folder, MissingError, PlaceError, ThereError
from sofinance.backups.store import BackupError
from sofinance.backups.take import Keys
from sofinance.infra.command import SetupError
from tests.s3_faults import faults
from tests.s3_faults import place as place_of
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sofinance.backups.places import Place

KEYS = Keys((b"k" * 32,))
SEGMENT = "00000001000000000000002A"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A server of this file's own."""
    running = S3Server()
    yield running
    running.stop()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: S3Server) -> Place:
    """A place with nothing in it."""
    if request.param == "folder":
        return Folder(tmp_path / "place")
    return place_of(server, f"{os.urandom(4).hex()}/deep")


def test_what_was_written_is_there_once_and_whole(place: Place):
    assert place.entries() == []
    place.write("a", b"one")
    (place / "below").write("b", b"two")
    assert place.read("a") == b"one"
    assert [(entry.name, entry.bytes) for entry in place.entries()] == [("a", 3)]
    assert datetime.now(UTC) - place.entries()[0].changed_at < timedelta(minutes=1)
    assert (place / "below").read("b") == b"two"
    with pytest.raises(ThereError, match="was not replaced"):
        place.write("a", b"three")
    assert place.read("a") == b"one"
    with pytest.raises(MissingError, match="There is no"):
        place.read("c")

    def break_off() -> None:
        with place.writing("c") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert not place.has("c")
    place.remove("a")
    place.remove("a")
    assert place.entries() == []


def test_what_is_larger_than_a_part_travels_in_parts(place: Place):
    block = os.urandom(1 << 20)

    def break_off() -> None:
        with place.writing("broken") as file:
            for _ in range(20):
                file.write(block)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    with place.writing("large") as file:
        for _ in range(40):
            file.write(block)
        file.write(b"and the end")
    assert [(entry.name, entry.bytes) for entry in place.entries()] == [("large", (40 << 20) + 11)]
    tracemalloc.start()
    with place.reading("large") as file:
        count = 0
        while chunk := file.read(1 << 20):
            assert chunk in {block, b"and the end"}
            count += len(chunk)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == (40 << 20) + 11
    assert peak_bytes < 16 << 20
    place.clear(now=datetime.now(UTC) + timedelta(days=3))
    assert place.has("large")


def test_a_segment_is_kept_once_and_comes_back(place: Place, tmp_path: Path):
    segment, back = tmp_path / SEGMENT, tmp_path / "RECOVERYXLOG"
    segment.write_bytes(os.urandom(4096) + bytes(1 << 20))
    location = wal.archive(place, segment, KEYS)
    assert location.endswith(f"{SEGMENT}.gz.enc")
    assert wal.archive(place, segment, KEYS) == location  # the same again
    (entry,) = place.entries()
    assert entry.bytes < 64 << 10
    wal.fetch(place, SEGMENT, back, KEYS)
    assert back.read_bytes() == segment.read_bytes()
    with pytest.raises(MissingError):
        wal.fetch(place, SEGMENT[:-1] + "F", tmp_path / "other", KEYS)
    assert not (tmp_path / "other").exists()
    with pytest.raises(BackupError, match="another key"):
        wal.fetch(place, SEGMENT, tmp_path / "other", Keys((b"o" * 32,)))

    segment.write_bytes(b"another")
    with pytest.raises(SetupError, match="is another one"):
        wal.archive(place, segment, KEYS)
    wal.fetch(place, SEGMENT, back, KEYS)
    assert back.read_bytes() != b"another"
    with pytest.raises(SetupError, match="is no segment"):
        wal.archive(place, tmp_path / "postgresql.conf", KEYS)
    # What the script keeps is read as well.
    place.write("00000002.history", b"1\t0/2000000\tno recovery target specified\n")
    wal.fetch(place, "00000002.history", back, KEYS)
    assert back.read_bytes().startswith(b"1\t0/2000000")


def fake(place: Place, name: str, taken_at: datetime, **said: Any) -> str:
    """Write what looks like a finished backup, and is whole."""
    place.write(name, name.encode())
    manifest = {
        "taken_at": taken_at.isoformat(), "is_encrypted": False, "migrations": [], "contents": {},
        **said,
    }  # fmt: skip
    return store.finish(place, name, hashlib.sha256(name.encode()).hexdigest(), manifest, None).name


def test_old_dumps_go_and_the_last_good_one_never(place: Place):
    now = datetime.now(UTC)
    names = [
        fake(place, f"pg_books_202601{number:02}T020000Z.dump", now - timedelta(days=age))
        for number, age in enumerate((400, 90, 60, 20), start=1)
    ]
    assert store.prune(place, "other", store.Keeping(30), now=now) == []
    assert store.prune(place, "books", store.Keeping(30), now=now) == names[:3]
    assert {entry.name for entry in place.entries()} == {
        names[3], store.manifest_name(names[3]), store.sum_name(names[3]),
    }  # fmt: skip
    # A year later the newest is damaged, and the one before it is all there is.
    damaged = fake(place, "pg_books_20260105T020000Z.dump", now)
    place.remove(damaged)
    place.write(damaged, b"damaged")
    gone = store.prune(place, "books", store.Keeping(30), now=now + timedelta(days=365))
    assert gone == [damaged]
    assert [backup.name for backup in store.listing(place)] == [names[3]]


def test_the_log_stays_that_any_kept_base_needs(place: Place):
    now, bases = datetime.now(UTC), place / point_in_time.BASES
    # Segments are of now, and bases of later: of clocks we can only make our own.
    first = fake(bases, "base_20260101T000000Z.tar.gz", now + timedelta(hours=2),
                 first_segment="000000010000000000000010")  # fmt: skip
    second = fake(bases, "base_20260201T000000Z.tar.gz", now + timedelta(days=20),
                  first_segment="000000010000000000000030")  # fmt: skip
    segments = place / "wal"
    of_before = ["00000001000000000000000F.gz", "00000001000000000000000E.00000028.backup"]
    needed = [
        "000000010000000000000010.gz.enc", "00000002000000000000002F", "00000002.history",
        "000000010000000000000030.gz",
    ]  # fmt: skip
    for name in (*of_before, *needed):
        segments.write(name, b"log")
    keeping = store.Keeping(30)
    gone = point_in_time.prune(place, segments, keeping, now=now + timedelta(days=25))
    assert sorted(gone) == sorted(of_before)
    gone = point_in_time.prune(place, segments, keeping, now=now + timedelta(days=40))
    assert sorted(gone) == sorted([first, needed[0], needed[1]])
    # The newest stays however old, and another server's log is not measured by it.
    assert point_in_time.prune(place, segments, keeping, now=now + timedelta(days=999)) == []
    assert [backup.name for backup in point_in_time.bases(place)] == [second]


# -- faults ----------------------------------------------------------------------------------------


def took(began_s: float) -> float:
    return time.monotonic() - began_s


def test_what_fails_once_is_tried_again(server: S3Server):
    with faults(server) as between:
        there = place_of(server, "again", port=between.port, timeout_s=3)
        between.plan[:] = ["503", "503"]
        assert there.entries() == []
        between.plan[:] = ["", "hang"]
        there.write("hung", b"content")
        between.plan[:] = ["cut"]
        assert there.read("hung") == b"content"
        assert not there.has("lost")
        # The object is there and its answer is lost: it is not written twice.
        between.plan[:] = ["", "lost"]
        with pytest.raises(ThereError):
            there.write("lost", b"content")
        assert there.read("lost") == b"content"


def test_a_bucket_that_does_not_answer_ends_in_time_and_is_left_alone(server: S3Server):
    with faults(server) as between:
        there = place_of(server, "away", port=between.port, timeout_s=0.3)
        for _ in range(s3.FAILURES_MAX):
            between.plan[:] = ["hang"] * s3.TRIES_MAX
            began_s = time.monotonic()
            with pytest.raises(PlaceError, match="does not answer"):
                there.read("anything")
            assert took(began_s) < 30
        asked = len(between.seen)
        with pytest.raises(PlaceError, match="left alone"):
            (there / "below").has("anything")
        assert len(between.seen) == asked
    nobody = place_of(server, port=1)
    with pytest.raises(PlaceError, match="does not answer"):
        nobody.entries()


def test_a_download_that_breaks_off_again_and_again_is_given_up(server: S3Server):
    content = os.urandom(8 << 20)
    place_of(server, "breaks").write("large", content)
    with faults(server) as between:
        there = place_of(server, "breaks", port=between.port)
        between.plan[:] = ["cut"] * s3.RESUMES_MAX
        assert there.read("large") == content
        between.plan[:] = ["cut"] * (s3.RESUMES_MAX + 1)
        with pytest.raises(PlaceError, match="breaks off"):
            there.read("large")


def test_what_has_changed_while_it_was_read_is_refused(server: S3Server):
    there = place_of(server, "changed")
    there.write("large", bytes(8 << 20))
    with faults(server) as between:
        reading = place_of(server, "changed", port=between.port)
        between.plan[:] = ["cut"]

        def read() -> None:
            with reading.reading("large") as file:
                there.remove("large")
                there.write("large", b"1" * (8 << 20))
                while file.read(1 << 20):
                    pass

        with pytest.raises(PlaceError, match=r"refused|changed"):
            read()


def test_wrong_bytes_are_found_out_before_postgresql_lets_go(server: S3Server, tmp_path: Path):
    segment = tmp_path / SEGMENT
    segment.write_bytes(os.urandom(4096))
    with faults(server) as between:
        there = place_of(server, f"wrong{os.urandom(4).hex()}", port=between.port)
        # Is it there, in three forms, and again; written; read back, with a bit turned over.
        between.plan[:] = [*[""] * 5, "wrong"]
        with pytest.raises((BackupError, PlaceError)):
            wal.archive(there, segment, KEYS)
        assert wal.archive(there, segment, KEYS)


def test_a_refusal_is_told(server: S3Server):
    place: Any = s3.Bucket.at("s3://no-such-bucket/x", s3.Access(
        endpoint=server.url, access_key_id="tests", secret_access_key="tests",
    ))  # fmt: skip
    with pytest.raises(PlaceError, match="NoSuchBucket"):
        place.entries()
    with pytest.raises(PlaceError, match="NoSuchBucket"):
        place.write("a", b"b")

"""Mail: nobody waits for it, a real server takes it, and nothing that strangers type gets in."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, message_from_string
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sofinance.config import Settings
from sofinance.infra import mail, metrics
from sofinance.infra.command import SetupError
from sofinance.infra.mail import Mailer

if TYPE_CHECKING:
    from collections.abc import Iterator

    Server = subprocess.Popen[str]

PROGRAM = Path(__file__).with_name("smtp_server.py")
GOOD = {"smtp_user": "books", "smtp_password": "a password of this test"}


def settings(**changes: Any) -> Settings:
    return Settings.for_tests(
        database_url="postgresql://x/y", mail_from="The books <books@shop.example>", **changes
    )


@contextmanager
def smtp(mode: str, *files: Path) -> Iterator[tuple[int, Server]]:
    """Yield the port of a mail server that runs in a process of its own, and the process."""
    server = subprocess.Popen(
        [sys.executable, str(PROGRAM), mode, *map(str, files)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline()), server
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


def taken(server: Server) -> dict[str, Any]:
    assert server.stdout is not None
    message: dict[str, Any] = json.loads(server.stdout.readline())
    return message


def count(outcome: str) -> float:
    return float(metrics.MAILS.labels(outcome)._value.get())  # noqa: SLF001 - no other way to read


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def deliver(options: Settings, *, pause_s: float = 0.01, **changes: str) -> None:
    """Send one message and wait till it is gone, or given up."""
    mailer = Mailer(mail.delivery(options), sender=options.mail_from, pause_s=pause_s)
    mailer.start()
    mailer.send(**{"to": "ada@shop.example", "subject": "Hello", "text": "A link.\n", **changes})
    await mailer.stop(grace_s=30)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody knows, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    here = x509.IPAddress(ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert, private


# -- by SMTP -------------------------------------------------------------------------------------


async def test_a_server_takes_a_message():
    with smtp("plain") as (port, server):
        sent = count("sent")
        await deliver(
            settings(smtp_host="127.0.0.1", smtp_port=port, smtp_tls="off"),
            subject="Grüße: 5 €", text="Ein Link:\nhttps://shop.example/x?token=y\n.\nEnde\n",
        )  # fmt: skip
        got = taken(server)
    assert (got["from"], got["to"]) == ("books@shop.example", ["ada@shop.example"])
    message = message_from_string(got["content"], policy=mail.SMTP)
    assert str(message["Subject"]) == "Grüße: 5 €"
    assert str(message["From"]) == "The books <books@shop.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@shop.example>")
    assert message["Date"]
    assert "token=y\r\n.\r\nEnde" in message.get_content().replace("\n", "\r\n").replace(
        "\r\r", "\r"
    )
    assert count("sent") == sent + 1


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_it_travels_encrypted_with_a_user_and_a_password(
    mode: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    with smtp(mode, *certificate) as (port, server):
        options = settings(smtp_host="127.0.0.1", smtp_port=port, smtp_tls=mode, **GOOD)
        failed, sent = count("failed"), count("sent")
        await deliver(options)  # nobody vouches for this certificate
        assert count("failed") == failed + 1
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        await deliver(options)
        got = taken(server)
    assert count("sent") == sent + 1
    assert got["user"] == "books"
    assert got["encrypted"]


async def test_without_encryption_nothing_is_sent_when_it_is_wanted():
    with smtp("plain") as (port, _):
        failed = count("failed")
        await deliver(settings(smtp_host="127.0.0.1", smtp_port=port, smtp_tls="starttls"))
        await deliver(settings(smtp_host="127.0.0.1", smtp_port=port, smtp_tls="tls"))
    assert count("failed") == failed + 2


async def test_a_refused_message_is_not_tried_again(caplog: pytest.LogCaptureFixture):
    with smtp("refuse") as (port, _):
        failed, began = count("failed"), time.monotonic()
        with caplog.at_level(logging.DEBUG):
            await deliver(
                settings(smtp_host="127.0.0.1", smtp_port=port, smtp_tls="off"), pause_s=60
            )
    assert count("failed") == failed + 1
    assert time.monotonic() - began < 30
    assert "a message was refused: SMTP 550" in caplog.text
    assert "ada@" not in caplog.text


async def test_a_busy_server_is_tried_again(caplog: pytest.LogCaptureFixture):
    with smtp("busy") as (port, server):
        sent = count("sent")
        with caplog.at_level(logging.DEBUG):
            await deliver(settings(smtp_host="127.0.0.1", smtp_port=port, smtp_tls="off"))
        assert taken(server)["to"] == ["ada@shop.example"]
    assert count("sent") == sent + 1
    assert "attempt 2 to send a message failed" in caplog.text
    assert "ada@" not in caplog.text


async def test_a_server_that_hangs_or_is_gone_costs_nobody_time():
    with smtp("hang") as (port, _):
        options = settings(smtp_host="127.0.0.1", smtp_port=port, smtp_timeout_s=1)
        mailer = Mailer.configured(options)
        mailer.start()
        began, dropped = time.perf_counter(), count("dropped")
        try:
            for _number in range(mail.WAITING_COUNT_MAX + 5):
                mailer.send(to="ada@shop.example", subject="x", text="y")
            assert time.perf_counter() - began < 60  # one after the other: a thousand seconds
            assert count("dropped") == dropped + 5  # more than may wait
            await asyncio.sleep(0.1)
        finally:
            await mailer.stop(grace_s=0.1)  # else it goes on in the tests that follow
        assert count("dropped") == dropped + mail.WAITING_COUNT_MAX + 5
        await asyncio.wait_for(deliver(options), 60)
    failed = count("failed")
    await deliver(options)
    assert count("failed") == failed + 1


# -- what gets in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "ada@shop.example\r\nBcc: all@shop.example"},
        {"to": "ada@shop.example, eve@evil.example"},
        {"to": "Ada <ada@shop.example>"},
        {"to": "ada@shop.example\0"},
        {"to": "nobody"},
        {"to": ""},
        {"subject": "Hello\nBcc: all@shop.example"},
        {"subject": "Hello\r\n\r\nAnother body"},
        {"text": "x" * 100_001},
    ],
)
async def test_nothing_is_smuggled_into_a_header(
    tmp_path: Path, changes: dict[str, str], caplog: pytest.LogCaptureFixture
):
    failed = count("failed")
    with caplog.at_level(logging.DEBUG):
        await deliver(settings(mail_folder=str(tmp_path)), **changes)
    assert count("failed") == failed + 1
    assert names(tmp_path) == []
    assert "@" not in caplog.text


# -- into a folder -------------------------------------------------------------------------------


async def test_without_a_server_mail_is_written_into_a_folder(tmp_path: Path):
    folder = tmp_path / "new" / "mail"
    await deliver(settings(mail_folder=str(folder)))
    (written,) = folder.iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    message = message_from_bytes(written.read_bytes(), policy=mail.SMTP)
    assert (message["To"], message["Subject"]) == ("ada@shop.example", "Hello")
    assert message.get_content().strip() == "A link."


async def test_a_folder_that_is_a_link_elsewhere_is_not_written_to(tmp_path: Path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "mail").symlink_to(tmp_path / "theirs")
    failed = count("failed")
    await deliver(settings(mail_folder=str(tmp_path / "mail")))
    assert count("failed") == failed + 1
    assert names(tmp_path / "theirs") == []


async def test_in_production_mail_without_a_way_is_counted_and_told():
    options = settings(environment="production")
    dropped = count("dropped")
    await deliver(options)
    assert count("dropped") == dropped + 1
    with pytest.raises(SetupError, match="no mail will be sent"):
        mail.check(options)
    mail.check(settings(environment="development"))
    mail.check(settings(environment="production", smtp_host="mail.example"))


def test_tls_of_this_python_can_be_pointed_at_a_certificate():
    assert ssl.get_default_verify_paths().openssl_cafile_env == "SSL_CERT_FILE"

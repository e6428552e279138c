"""Every setting once: name, type, unit, default, form and why; all problems are told at once.

A setting is read from the environment variable of its name in capitals, else from the files that
infra/settings_layers.py names. A secret may also be read from a file, whose path is in the
variable with ``_FILE`` behind its name (as Docker and Kubernetes mount them), so that it stands in
no process list and no ``docker inspect``.

Another one is a declaration here and nothing else. What must hold of several together stands in
config_rules.py; how they are read, in infra/settings_reader.py.
"""

from __future__ import annotations

import os
from dataclasses import Field, dataclass, fields
from datetime import date
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from sofinance.config_rules import PLACEHOLDER_SECRET, at_odds, unfit_to_serve
from sofinance.infra import settings_checks
from sofinance.infra.settings_checks import KEY_BYTES, database_url, encryption_key
from sofinance.infra.settings_layers import Layers
from sofinance.infra.settings_reader import Reader, SettingsError, setting, source_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "FIELDS", "PLACEHOLDER_SECRET", "REQUIRED", "Layers", "Settings", "SettingsError",
    "database_url", "encryption_key", "layers", "load", "load_given", "read", "require",
    "rotation_dates", "source_of", "text_of",
]  # fmt: skip

PORT_MAX = 65_535


def _rotated_on(_variable: str, text: str) -> str:
    rotation_dates(text)
    return text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration, checked; a secret never shows in its repr."""

    environment: str = setting(
        "development", "Where this runs; production and staging refuse example secrets.",
        choices=("development", "staging", "production"),
    )  # fmt: skip
    host: str = setting("127.0.0.1", "The address to listen on; 0.0.0.0 inside a container.")
    port: int = setting(8000, "The TCP port to listen on.", low=0, high=PORT_MAX)
    web_concurrency: int = setting(
        0, "Worker processes of `sofinance serve --workers` and gunicorn; 0: twice the cores.",
        unit="processes", low=0, high=512,
    )  # fmt: skip
    web_timeout_s: int = setting(
        60, "How long such a process may show no sign of life before it is replaced.",
        unit="s", low=5, high=600,
    )  # fmt: skip
    drain_delay_s: int = setting(
        0, "How long after SIGTERM requests are still taken, while /health/ready says 503; longer "
        "than whoever balances the load takes to notice.", unit="s", low=0, high=300,
    )  # fmt: skip
    shutdown_timeout_s: int = setting(
        20, "How long after that the requests under way may take, before they are cut.",
        unit="s", low=1, high=600,
    )  # fmt: skip
    log_level: str = setting(
        "info", "The least important level that is logged.",
        choices=("debug", "info", "warning", "error", "critical"),
    )  # fmt: skip

    database_url: str = setting(
        "", "The database, as the role sofinance_app: postgresql://user:password@host:port/name.",
        secret=True, required=True, max_age_days=90,
        example="postgresql://sofinance_app:...@127.0.0.1:5432/sofinance",
        check=settings_checks.database_url,
    )  # fmt: skip
    owner_url: str = setting(
        "", "The same database as the owner of its tables, for `migrate`, `user create` and the "
        "worker's maintenance.",
        secret=True, max_age_days=90, example="postgresql://postgres:...@127.0.0.1:5432/sofinance",
        check=settings_checks.database_url,
    )  # fmt: skip
    database_pool_size: int = setting(
        10, "Connections per worker process, which opens one more to look after the database; all "
        "workers' together stay below max_connections.",
        unit="connections", low=1, high=200,
    )  # fmt: skip
    database_prepared_statements: bool = setting(
        True, "Keep statements prepared; false behind a PgBouncer before 1.21 in transaction mode."
    )
    database_acquire_timeout_s: int = setting(
        5, "How long a request waits for a free connection before it answers 503.",
        unit="s", low=1, high=60,
    )  # fmt: skip
    database_pool_waiting_max: int = setting(
        200, "How many requests may wait for a connection in a worker; who comes then is answered "
        "503 at once.", unit="requests", low=0, high=10_000,
    )  # fmt: skip
    database_replica_url: str = setting(
        "", "A streaming standby of the same database that answers reports, as sofinance_app.",
        secret=True, max_age_days=90, example="postgresql://sofinance_app:...@replica/sofinance",
        check=settings_checks.database_url,
    )  # fmt: skip
    database_replica_lag_max_s: int = setting(
        2, "How long a report waits for the standby to have all that was committed before it was "
        "asked for; a standby that lags more is not used.", unit="s", low=1, high=60,
    )  # fmt: skip
    database_statement_timeout_ms: int = setting(
        5_000, "The longest a statement may run before PostgreSQL cancels it and we answer 503.",
        unit="ms", low=100, high=600_000,
    )  # fmt: skip

    jwt_secret: str = setting(
        "", "The key that signs access tokens: 32 characters or more, from a random source.",
        secret=True, required=True, unless="jwt_keys_dir", also=("SECRET_KEY",),
        example=PLACEHOLDER_SECRET, max_age_days=365,
        check=settings_checks.signing_secret,
    )  # fmt: skip
    jwt_secret_previous: str = setting(
        "", "While JWT_SECRET changes, the other one: it verifies tokens and signs none.",
        secret=True, max_age_days=365,
        check=settings_checks.signing_secret,
    )  # fmt: skip
    jwt_algorithm: str = setting(
        "HS256", "How JWT_SECRET signs; a key from JWT_KEYS_DIR has its own algorithm.",
        choices=("HS256", "HS384", "HS512"),
    )  # fmt: skip
    jwt_keys_dir: str = setting(
        "", "A directory with a file per key, made by `sofinance keys rotate`; the newest signs.",
    )  # fmt: skip
    jwt_key_overlap_minutes: int = setting(
        60, "How long a key verifies after the next one began; no less than ACCESS_TOKEN_MINUTES.",
        unit="minutes", low=1, high=43_200,
    )  # fmt: skip
    jwt_key_activation_s: int = setting(
        120, "How long after it appeared a key begins to sign: till every worker knows it.",
        unit="s", low=0, high=86_400,
    )  # fmt: skip
    jwt_issuer: str = setting("sofinance", "The `iss` claim that is given and demanded.")
    jwt_audience: str = setting("sofinance", "The `aud` claim that is given and demanded.")
    access_token_minutes: int = setting(
        15, "How long an access token is good; until then it is renewed with a refresh token.",
        unit="minutes", low=1, high=1_440, also=("JWT_EXPIRATION_MINUTES",),
    )  # fmt: skip
    session_idle_minutes: int = setting(
        480, "How long a session lasts while nobody renews its tokens.",
        unit="minutes", low=5, high=43_200,
    )  # fmt: skip
    session_life_minutes: int = setting(
        20_160, "How long a session lasts in any case; 20,160 minutes are 14 days.",
        unit="minutes", low=5, high=129_600,
    )  # fmt: skip
    session_count_max: int = setting(
        5, "Sessions that a user may have at a time; another one ends the oldest.",
        unit="sessions", low=1, high=100,
    )  # fmt: skip
    password_reset_minutes: int = setting(
        30, "How long a link for a new password is good.", unit="minutes", low=5, high=1_440
    )
    password_reset_url: str = setting(
        "", "Your page on which a new password is chosen; the link in the mail is this and "
        "`#token=...`. Without it the mail has the token alone.",
        example="https://office.example.com/new-password",
        check=settings_checks.page,
    )  # fmt: skip
    operator_org_id: int = setting(
        0, "The organisation whose administrators see the server's own state (/debug, jobs) and "
        "run it (backups, flags of everybody). With 0 nobody does in production, nor where anybody "
        "can sign up; elsewhere those of any organisation do.", low=0, high=2**63 - 1,
    )  # fmt: skip
    sign_up_enabled: bool = setting(
        False, "Let anybody found an organisation by POST /sign-up; needs DATA_ENCRYPTION_KEY."
    )
    sign_up_minutes: int = setting(
        60, "How long a link to sign up is good.", unit="minutes", low=5, high=1_440
    )
    sign_up_url: str = setting(
        "", "Your page on which one signs up; the link in the mail is this and `#token=...`. "
        "Without it the mail has the token alone.", example="https://office.example.com/welcome",
        check=settings_checks.page,
    )  # fmt: skip
    portal_url: str = setting(
        "", "Your page on which customers see their statement and receipts; the link in the mail "
        "is this and `#token=...`. Without it there is no portal.",
        example="https://shop.example.com/account", check=settings_checks.page,
    )  # fmt: skip
    portal_link_minutes: int = setting(
        30, "How long a link to the portal is good.", unit="minutes", low=5, high=30
    )
    portal_session_minutes: int = setting(
        60, "How long a customer's session in the portal lasts; it is not renewed.",
        unit="minutes", low=5, high=1_440,
    )  # fmt: skip
    mfa_required_roles: str = setting(
        "", "Roles that must use a second factor, with commas between; until they have enrolled "
        "one they may do nothing else.", example="ADMIN,MANAGER",
    )  # fmt: skip

    data_encryption_key: str = setting(
        "", "Encrypts secrets in the database: 32 bytes from `openssl rand -hex 32`; keep it apart "
        "from the database's backups. Without it nobody can enrol a second factor.",
        secret=True, max_age_days=365,
        check=settings_checks.key,
    )  # fmt: skip
    data_encryption_key_previous: str = setting(
        "", "The key before DATA_ENCRYPTION_KEY; it still decrypts.", secret=True,
        max_age_days=365,
        check=settings_checks.key,
    )  # fmt: skip

    backup_url: str = setting(
        "", "The database for `sofinance backup`, as sofinance_backup, which sees all rows.",
        secret=True, max_age_days=90,
        example="postgresql://sofinance_backup:...@127.0.0.1:5432/sofinance",
        check=settings_checks.database_url,
    )  # fmt: skip
    restore_url: str = setting(
        "", "The database that `sofinance restore` restores into, as a superuser; --to instead.",
        secret=True, max_age_days=90, example="postgresql://postgres:...@127.0.0.1:5432/books",
        check=settings_checks.database_url,
    )  # fmt: skip
    backup_dir: str = setting(
        "./backups", "Where backups are written to and found: a directory, or s3://bucket/prefix.",
        check=settings_checks.place,
    )  # fmt: skip
    backup_wal_dir: str = setting(
        "", "Where archive_command keeps PostgreSQL's log, a directory or s3://bucket/prefix; "
        "empty: `wal` in BACKUP_DIR.", example="/srv/wal", check=settings_checks.place,
    )  # fmt: skip
    backup_keep_days: int = setting(
        30, "How long a backup is kept; the newest good one stays in any case.",
        unit="days", low=1, high=3_650,
    )  # fmt: skip
    backup_keep_weeks: int = setting(
        12, "How long the last backup of each week is kept, beyond BACKUP_KEEP_DAYS.",
        unit="weeks", low=0, high=520,
    )  # fmt: skip
    backup_files: str = setting(
        "copy", "Whether the files of the store are copied into backups, or only listed with their "
        "checksums, where the bucket keeps versions itself.", choices=("copy", "list"),
    )  # fmt: skip
    backup_s3_endpoint: str = setting(
        "", "The S3 server of backups; empty: Amazon's.", example="https://minio.example.com",
        check=settings_checks.endpoint,
    )  # fmt: skip
    backup_s3_region: str = setting("", "Its region; empty: us-east-1.", example="eu-central-1")
    backup_s3_access_key_id: str = setting(
        "", "Who writes backups to S3; empty: what AWS_* or the machine's role say.", secret=True,
    )  # fmt: skip
    backup_s3_secret_access_key: str = setting(
        "", "The secret that belongs to BACKUP_S3_ACCESS_KEY_ID.", secret=True,
    )  # fmt: skip
    backup_encryption_key: str = setting(
        "", "Encrypts backups: 32 bytes from `openssl rand -hex 32`. Keep it apart from them: "
        "without it they cannot be restored.", secret=True, max_age_days=365,
        check=settings_checks.key,
    )  # fmt: skip
    backup_encryption_key_previous: str = setting(
        "", "The key before BACKUP_ENCRYPTION_KEY; it still decrypts.", secret=True,
        max_age_days=365,
        check=settings_checks.key,
    )  # fmt: skip
    pg_bin: str = setting(
        "", "The directory of pg_dump and pg_restore; empty: those that fit the server's version, "
        "of PATH, Debian's directories and the embedded database.",
        example="/usr/lib/postgresql/18/bin",
    )  # fmt: skip

    storage_backend: str = setting(
        "local", "Where files are kept: a directory of this machine, or a bucket that speaks S3.",
        choices=("local", "s3"),
    )  # fmt: skip
    storage_dir: str = setting(
        "./uploads", "Where STORAGE_BACKEND=local keeps files; all workers must see it."
    )
    s3_endpoint_url: str = setting(
        "", "Where the bucket is, unless it is at AWS.", example="https://minio.example.com:9000",
        check=settings_checks.endpoint,
    )  # fmt: skip
    s3_bucket: str = setting("", "The bucket that files are kept in.", example="sofinance-files")
    s3_region: str = setting("us-east-1", "The bucket's region.")
    s3_access_key_id: str = setting(
        "", "The name of the key to the bucket; empty: that of the machine's role."
    )
    s3_secret_access_key: str = setting("", "The key that goes with S3_ACCESS_KEY_ID.", secret=True)
    s3_prefix: str = setting(
        "", "What every key begins with, in a bucket that others use, too.", example="sofinance/"
    )
    s3_connect_timeout_s: int = setting(
        3, "How long connecting to the bucket may take.", unit="s", low=1, high=60
    )
    s3_read_timeout_s: int = setting(
        10, "How long the bucket may be silent.", unit="s", low=1, high=300
    )
    s3_attempts: int = setting(
        4, "How often the bucket is asked before it counts as a failure.",
        unit="attempts", low=1, high=10,
    )  # fmt: skip
    upload_max_bytes: int = setting(
        10_485_760, "The largest file that may be attached; a larger one is answered 413.",
        unit="bytes", low=1_024, high=1_073_741_824,
    )  # fmt: skip
    upload_timeout_s: int = setting(
        300, "How long a file may take to arrive.", unit="s", low=1, high=1_800
    )

    secrets_rotated_on: str = setting(
        "", "When secrets were last changed, where it is not the time of their file; tells which "
        "are too old.", example="JWT_SECRET=2026-01-15, DATABASE_URL=2026-03-01",
        check=_rotated_on,
    )  # fmt: skip

    idempotency_required: bool = setting(
        False,
        "Refuse a POST without an Idempotency-Key, where answers are kept for keys.",
    )
    idempotency_ttl_hours: int = setting(
        24, "How long an answer is kept for replay under its Idempotency-Key.",
        unit="hours", low=1, high=720,
    )  # fmt: skip
    max_body_bytes: int = setting(
        1_048_576, "The largest request body; a larger one is answered 413 unread.",
        unit="bytes", low=1_024, high=104_857_600,
    )  # fmt: skip
    max_json_depth: int = setting(
        32, "How deep a body may nest objects and arrays; ours need five.",
        unit="levels", low=8, high=512,
    )  # fmt: skip
    request_body_timeout_s: int = setting(
        30, "How long a body may take to arrive before it is answered 408.",
        unit="s", low=1, high=600,
    )  # fmt: skip
    cors_origins: str = setting(
        "", "Origins whose pages may call this, exactly, comma-separated; there is no wildcard.",
        example="https://office.example.com,https://shop.example.com",
        check=settings_checks.origins,
    )  # fmt: skip
    hsts_max_age_s: int = setting(
        0, "How long browsers shall use only https here (Strict-Transport-Security); 0: not said.",
        unit="s", low=0, high=63_072_000,
    )  # fmt: skip

    rate_limit_enabled: bool = setting(
        True, "Limit requests; without, one caller can take all there is. Imports may need it off."
    )
    rate_limit_per_minute: int = setting(
        600, "What each user, API key, till or unknown address may ask in the long run.",
        unit="requests a minute", low=1, high=10_000_000,
    )  # fmt: skip
    rate_limit_burst: int = setting(
        1_200, "What each of them may ask at once: a till that was offline sends its day.",
        unit="requests", low=1, high=1_000_000,
    )  # fmt: skip
    rate_limit_org_per_minute: int = setting(
        12_000, "What all callers of one organisation together may ask in the long run.",
        unit="requests a minute", low=1, high=10_000_000,
    )  # fmt: skip
    rate_limit_org_burst: int = setting(
        24_000, "What they may ask at once: many tills, back online in the same second.",
        unit="requests", low=1, high=1_000_000,
    )  # fmt: skip
    rate_limit_sign_in_per_minute: int = setting(
        60, "Sign-ins and other costly guesses from one address in the long run, right or wrong.",
        unit="requests a minute", low=1, high=100_000,
    )  # fmt: skip
    rate_limit_sign_in_burst: int = setting(
        120, "The same at once: a shop's staff behind one address, at opening time.",
        unit="requests", low=1, high=100_000,
    )  # fmt: skip
    rate_limit_report_per_minute: int = setting(
        60, "Costly reports that one caller may ask for in the long run.",
        unit="requests a minute", low=1, high=100_000,
    )  # fmt: skip
    rate_limit_report_burst: int = setting(
        60, "The same at once: a dashboard asks for a dozen when it opens.",
        unit="requests", low=1, high=100_000,
    )  # fmt: skip
    redis_timeout_ms: int = setting(
        40, "The longest a request waits for Redis before its worker counts by itself.",
        unit="ms", low=1, high=1_000,
    )  # fmt: skip
    trust_proxy_headers: bool = setting(
        False, "Take the client's address from what trusted proxies write into headers."
    )
    trusted_proxy_ips: str = setting(
        "", "The addresses of the proxies before us, with commas; `unix` for a Unix socket's peer.",
        example="10.0.0.5, 10.0.0.6",
        check=settings_checks.peers,
    )  # fmt: skip
    trusted_proxy_cidrs: str = setting(
        "",
        "Networks in which every address is such a proxy.",
        example="10.1.0.0/16, fd00::/8",
        check=settings_checks.peers,
    )

    admin_ip_allowlist_cidrs: str = setting(
        "", "Networks from which administration is open; empty: from everywhere.",
        example="10.8.0.0/16, 192.0.2.7",
        check=settings_checks.networks,
    )  # fmt: skip
    admin_read_only: bool = setting(
        False, "Refuse changes by administrative endpoints, but for whoever breaks the glass."
    )

    email_mode: str = setting(
        "auto", "How mail is sent; auto: by SMTP_HOST, else into MAIL_FOLDER.",
        choices=("auto", "off", "smtp", "folder", "sendgrid"),
    )  # fmt: skip
    sendgrid_api_key: str = setting(
        "", "The key to SendGrid; needed with EMAIL_MODE=sendgrid.", secret=True
    )
    sendgrid_url: str = setting(
        "https://api.sendgrid.com/v3/mail/send",
        "Where SendGrid takes mail; https, or http on this machine.",
        check=settings_checks.service,
    )  # fmt: skip
    mail_reminder_days: int = setting(
        0, "How old a debt is when its customer is reminded, and between reminders; 0: never.",
        unit="days", low=0, high=365,
    )  # fmt: skip
    mail_low_stock: bool = setting(
        False, "Tell the managers of a branch once a day what is low in it."
    )
    mail_unsubscribe_url: str = setting(
        "", "Where the world reaches /api/v1/mail/unsubscribe of this service, https://...; "
        "reminders and digests then say how to get no more. Needs DATA_ENCRYPTION_KEY.",
        check=settings_checks.page,
    )  # fmt: skip
    retention_mail_days: int = setting(
        90, "How long mail is kept that was sent or given up.", unit="days", low=1, high=3_650
    )
    retention_audit_days: int = setting(
        0, "After how long whole months of the audit log go into the store of files; 0: never.",
        unit="days", low=0, high=36_500, example="730",
    )  # fmt: skip
    retention_session_days: int = setting(
        30, "How long sessions are kept after their end.", unit="days", low=30, high=3_650
    )
    retention_notification_days: int = setting(
        90, "How long notifications are kept, read or not.", unit="days", low=1, high=3_650
    )
    retention_event_days: int = setting(
        30, "How long events for webhooks are kept that arrived everywhere or were given up, and "
        "their deliveries.", unit="days", low=1, high=3_650,
    )  # fmt: skip
    retention_orphan_days: int = setting(
        30, "After how long files of the store go that no row names; no less than backups are "
        "kept, so that a restored database finds its files. 0: never.",
        unit="days", low=0, high=3_650,
    )  # fmt: skip
    retention_job_run_days: int = setting(
        90, "How long it is kept what came of each run of a job.", unit="days", low=1, high=3_650
    )
    legacy_basic_auth_enabled: bool = setting(
        False, "Take Basic credentials below /v1/admin/, whose password is an API key; for cron."
    )
    smtp_host: str = setting(
        "", "The server that takes our mail; without it, see MAIL_FOLDER.",
        check=settings_checks.mail_server,
    )  # fmt: skip
    smtp_port: int = setting(587, "The port of SMTP_HOST.", low=1, high=PORT_MAX)
    smtp_user: str = setting("", "The name to sign in to SMTP_HOST with; empty for none.")
    smtp_password: str = setting("", "The password that goes with SMTP_USER.", secret=True)
    smtp_tls: str = setting(
        "starttls", "How mail is encrypted on its way to SMTP_HOST; without it nothing is sent.",
        choices=("starttls", "tls", "off"),
    )  # fmt: skip
    smtp_timeout_s: int = setting(
        20, "How long SMTP_HOST may take over one message.", unit="s", low=1, high=300
    )
    mail_from: str = setting(
        "",
        "The address that our mail comes from.",
        example="books@shop.example",
        check=settings_checks.address,
    )
    mail_folder: str = setting(
        "", "Without SMTP_HOST, mail is written here as .eml files; in development under /tmp.",
    )  # fmt: skip

    captcha_mode: str = setting(
        "off", "Who is asked to prove to be a person where strangers may write.",
        choices=("off", "turnstile"),
    )  # fmt: skip
    turnstile_secret_key: str = setting(
        "", "Turnstile's secret; needed with CAPTCHA_MODE=turnstile.", secret=True
    )
    turnstile_verify_url: str = setting(
        "https://challenges.cloudflare.com/turnstile/v0/siteverify",
        "Where a captcha's token is checked; https, or http on this machine.",
        check=settings_checks.service,
    )  # fmt: skip
    turnstile_hostname: str = setting(
        "", "The host that captchas are solved on; one solved elsewhere is refused.",
        example="shop.example",
    )  # fmt: skip

    stripe_secret_key: str = setting(
        "", "The key of your account at Stripe (sk_... or rk_...), for card payments.",
        secret=True, max_age_days=365,
        check=settings_checks.stripe_key,
    )  # fmt: skip
    stripe_webhook_secret: str = setting(
        "", "What Stripe signs its webhooks with (whsec_...); without it none is taken.",
        secret=True, max_age_days=365,
        check=settings_checks.stripe_webhook_secret,
    )  # fmt: skip
    stripe_webhook_secret_previous: str = setting(
        "", "While STRIPE_WEBHOOK_SECRET changes, the other one: what it signs is taken, too.",
        secret=True, max_age_days=365,
        check=settings_checks.stripe_webhook_secret,
    )  # fmt: skip
    stripe_org_ids: str = setting(
        "", "The organisations whose money this account takes, with commas; without any, all.",
        example="1", check=settings_checks.numbers,
    )  # fmt: skip
    stripe_success_url: str = setting(
        "", "Your page to which a customer comes back who has paid at Stripe.",
        example="https://shop.example.com/paid?session={CHECKOUT_SESSION_ID}",
        check=settings_checks.page,
    )  # fmt: skip
    stripe_cancel_url: str = setting(
        "", "Your page to which a customer comes back who has not paid.",
        example="https://shop.example.com/not-paid", check=settings_checks.page,
    )  # fmt: skip
    stripe_portal_return_url: str = setting(
        "", "Your page to which a customer comes back from Stripe's billing portal.",
        example="https://shop.example.com/account", check=settings_checks.page,
    )  # fmt: skip
    stripe_api_url: str = setting(
        "https://api.stripe.com", "Where Stripe is asked; https, or http on this machine.",
        check=settings_checks.page,
    )  # fmt: skip
    stripe_timeout_s: int = setting(
        10, "How long an answer of Stripe's may take.", unit="s", low=1, high=80
    )
    stripe_circuit_failures: int = setting(
        5, "After so many failures in a row within the window, Stripe is not asked for a while; "
        "the same counts for webhooks of Stripe's that fail here.",
        unit="failures", low=1, high=1_000,
    )  # fmt: skip
    stripe_circuit_window_s: int = setting(
        60, "Within what time those failures count.", unit="s", low=1, high=3_600
    )
    stripe_circuit_recovery_s: int = setting(
        30, "How long it is left alone then.", unit="s", low=1, high=3_600
    )
    stripe_circuit_probes: int = setting(
        2, "How many calls then try it, and must all succeed.", unit="calls", low=1, high=100
    )

    enable_audit_logging: bool = setting(
        True, "Write an audit row for every change, in the change's own transaction."
    )
    enable_response_enrichment: bool = setting(
        False, "Add the version and the request id to each answer's `meta`."
    )
    include_app_version_meta: bool = setting(
        True, "With ENABLE_RESPONSE_ENRICHMENT: `app_version`."
    )
    include_correlation_id: bool = setting(
        True, "With ENABLE_RESPONSE_ENRICHMENT: `correlation_id`, the X-Request-ID."
    )
    response_enrichment_add_to_meta: bool = setting(
        False, "With ENABLE_RESPONSE_ENRICHMENT: both under `_ctx` in `meta`, not beside its keys."
    )
    enable_key_mirroring: bool = setting(
        False, "Repeat the data's keys beside the envelope, for clients from before it."
    )
    mirror_pagination_keys: bool = setting(
        False, "With ENABLE_KEY_MIRRORING: `items`, `page`, `size` and `total` of a page, too."
    )

    job_heartbeat_required: bool = setting(
        False, "Be ready (/readyz) only while a worker shows signs of life."
    )
    job_heartbeat_ttl_seconds: int = setting(
        300, "How old a worker's last sign of life may be.", unit="s", low=10, high=86_400
    )
    worker_port: int = setting(
        0, "Where `sofinance worker` answers /livez and /metrics, at HOST; 0 for nowhere.",
        low=0, high=65_535,
    )  # fmt: skip
    git_commit: str = setting(
        "", "The commit that was built, for /debug/version; the image sets it.",
        example="4cd499a",
    )  # fmt: skip
    metrics_enabled: bool = setting(True, "Serve Prometheus metrics at /metrics.")
    metrics_token: str = setting(
        "", "When set, /metrics answers only to this bearer token.", secret=True
    )
    otel_exporter_otlp_endpoint: str = setting(
        "", "A collector that takes traces as OTLP over HTTP; without it nothing is recorded. "
        "Needs the extra `telemetry`.", check=settings_checks.collector,
        example="http://127.0.0.1:4318",
    )  # fmt: skip
    otel_exporter_otlp_headers: str = setting(
        "", "What the collector wants besides, name=value with commas between.", secret=True,
        check=settings_checks.pairs, example="authorization=Bearer ...",
    )  # fmt: skip
    trace_sample_percent: int = setting(
        10, "How many traces are kept of those that neither failed nor took over a second.",
        unit="%", low=0, high=100,
    )  # fmt: skip
    sentry_dsn: str = setting(
        "", "Where errors are reported, in Sentry's protocol and without personal data. "
        "Needs the extra `sentry`.", secret=True, check=settings_checks.sentry_dsn,
        example="https://key@sentry.example.com/1",
    )  # fmt: skip
    redis_url: str = setting(
        "", "Redis, for what workers share; without it each worker keeps its own.",
        secret=True, required_in="production", example="redis://127.0.0.1:6379/0",
        check=settings_checks.redis,
    )  # fmt: skip

    export_mode: str = setting(
        "off", "Whether webhooks are sent; off queues for the endpoints that there are.",
        choices=("off", "webhook"),
    )  # fmt: skip
    export_allowed_hosts: str = setting(
        "", "Hosts that webhooks may go to, *.example.com for all below; obligatory in production.",
        example="hooks.example.com,*.partner.example", check=settings_checks.hosts,
    )  # fmt: skip
    export_allowed_networks: str = setting(
        "", "Networks that webhooks may go to although they are not public; none is the safe way.",
        example="10.20.0.0/16", check=settings_checks.networks,
    )  # fmt: skip
    export_allow_http: bool = setting(
        False, "Let webhooks go to http://; anybody on their way reads them."
    )
    export_timeout_s: int = setting(
        15, "How long an endpoint may take to answer.", unit="s", low=1, high=30
    )
    export_retry_delays_s: str = setting(
        "0,5,300,1800,7200,18000,36000,50400,72000,86400",
        "The wait before each attempt, in seconds; after the last one a message is dead.",
        check=settings_checks.numbers,
    )
    export_in_flight: int = setting(
        32, "Messages that a worker sends at once, a quarter of them to one endpoint.",
        unit="messages", low=4, high=500,
    )  # fmt: skip
    export_circuit_failures: int = setting(
        10, "After so many failures in a row an endpoint is left alone for a while.",
        unit="failures", low=1, high=1_000,
    )  # fmt: skip
    export_circuit_open_s: int = setting(
        60, "How long an endpoint that is down is left alone before one message tries it.",
        unit="s", low=1, high=3_600,
    )  # fmt: skip
    export_replay_org_ids: str = setting(
        "", "Organisations whose dead letters are replayed by themselves, at most twice; none.",
        example="1,7", check=settings_checks.numbers,
    )  # fmt: skip

    @property
    def second_factor_roles(self) -> frozenset[str]:
        """Return the roles that must use a second factor."""
        return frozenset(
            name.strip().upper() for name in self.mfa_required_roles.split(",") if name.strip()
        )

    @classmethod
    def for_tests(cls, *, database_url: str, **changes: Any) -> Settings:
        """Return settings for a test: complete, quick to refuse, with a key of its own."""
        return cls(**{
            "database_url": database_url,
            "jwt_secret": "only-for-tests-" * 3,
            "data_encryption_key": "5a" * KEY_BYTES,
            "database_pool_size": 5,
            "log_level": "warning",
            "storage_dir": str(Path(gettempdir()) / f"sofinance-test-files-{os.getuid()}"),
            # All tests come from one address; those of the limits turn them on.
            "rate_limit_enabled": False,
            **changes,
        })  # fmt: skip


FIELDS: dict[str, Field[Any]] = {f.name: f for f in fields(Settings)}
READER = Reader(FIELDS, at_odds, unfit_to_serve)
REQUIRED = READER.required


def load(
    environ: Mapping[str, str], *, required: Iterable[str] = REQUIRED, serves: bool = True
) -> Settings:
    """Read all settings; raises SettingsError with every problem, not only the first."""
    values, problems = read(environ, required=required, serves=serves)
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def load_given(environ: Mapping[str, str]) -> Settings:
    """Read settings for a command that serves nothing; what it needs it demands by `require`."""
    return load(environ, required=(), serves=False)


def read(
    environ: Mapping[str, str] | Layers,
    *,
    required: Iterable[str] = REQUIRED,
    serves: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """Return the values that are given and good, and every problem."""
    given = environ if isinstance(environ, Layers) else layers(environ)
    return READER.read(given, required, serves=serves)


def layers(environ: Mapping[str, str]) -> Layers:
    """Return where settings are given, the strongest first: the environment, then its files."""
    return READER.layers(environ)


def require(settings: Settings, names: Iterable[str]) -> None:
    """Refuse settings that lack one of these; for commands that need only some."""
    problems = READER.missing(vars(settings).get, names)
    if problems:
        raise SettingsError(problems)


def rotation_dates(text: str) -> dict[str, date]:
    """Read when secrets were set, `JWT_SECRET=2026-01-15, ...`; a ValueError says what is wrong."""
    names = {
        variable: name
        for name, declared in FIELDS.items() if declared.metadata["secret"]
        for variable in (name.upper(), *declared.metadata["also"])
    }  # fmt: skip
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        variable, _, day = (word.strip() for word in part.partition("="))
        if variable not in names:
            raise ValueError(f"SECRETS_ROTATED_ON: {variable!r} is no setting that is a secret.")
        try:
            found[names[variable]] = date.fromisoformat(day)
        except ValueError:
            raise ValueError(
                f"SECRETS_ROTATED_ON: {variable} needs a date such as 2026-01-15."
            ) from None
    return found

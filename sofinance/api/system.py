"""Backups of the whole server, for who runs it: taking, verifying, restoring, giving up.

What takes time is asked of a worker and written down; nothing here waits for it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import __version__
from sofinance import queries as q
from sofinance.backups.serving import download
from sofinance.infra import audit, health
from sofinance.infra.administration import demand_operator
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

GOOD_FOR_S = 300
RESTORE_COUNT_MAX = 2
BYTES_OF_MB = 1_000_000
STATUSES = ("PENDING", "SUCCESS", "FAILED")
KINDS = ("FULL", "BASE")
REFUSALS = {
    "unknown": ("confirmation_unknown", "This word confirms nothing: ask for a new one."),
    "used": ("confirmation_used", "This confirmation was used already: ask for a new one."),
    "expired": ("confirmation_expired", "This confirmation is too old: ask for a new one."),
}


class BackupQuery(PageQuery):
    type = fields.Str(load_default=None, validate=validate.OneOf(KINDS))
    status = fields.Str(load_default=None, validate=validate.OneOf(STATUSES))


class Backup(Schema):
    id = fields.Int(required=True)
    type = fields.Str(required=True, attribute="kind", metadata={"enum": [*KINDS]})
    status = fields.Str(required=True, metadata={"enum": [*STATUSES]})
    location = fields.Str(required=True)
    file_name = fields.Str(required=True, allow_none=True)
    size_bytes = fields.Int(required=True, allow_none=True)
    checksum_sha256 = fields.Str(required=True, allow_none=True, attribute="sha256")
    is_encrypted = fields.Bool(required=True, allow_none=True)
    row_count = fields.Int(required=True, allow_none=True)
    file_count = fields.Int(required=True, allow_none=True)
    taken_at = Timestamp(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    ended_at = Timestamp(required=True, allow_none=True)
    created_by = fields.Int(required=True, allow_none=True, attribute="requested_by")
    error = fields.Str(required=True, allow_none=True)
    verified_at = Timestamp(required=True, allow_none=True)
    verification_error = fields.Str(required=True, allow_none=True)


class BackupStats(Schema):
    total = fields.Int(required=True)
    successful = fields.Int(required=True)
    failed = fields.Int(required=True)
    pending = fields.Int(required=True)
    total_size_mb = fields.Int(required=True)
    last_backup_at = Timestamp(required=True, allow_none=True)
    last_verified_at = Timestamp(required=True, allow_none=True)


class RestoreJob(Schema):
    """What a worker was asked to do with a backup."""

    id = fields.Int(required=True)
    backup_id = fields.Int(required=True)
    mode = fields.Str(
        required=True,
        attribute="kind",
        metadata={"enum": ["CREATE", "VERIFY", "DRY_RUN", "RESTORE"]},
    )
    dry_run = fields.Bool(required=True, attribute="is_dry_run")
    status = fields.Str(
        required=True,
        metadata={"enum": ["QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"]},
    )
    created_by = fields.Int(required=True, attribute="requested_by")
    created_at = Timestamp(required=True)
    started_at = Timestamp(required=True, allow_none=True)
    ended_at = Timestamp(required=True, allow_none=True)
    cancel_requested_at = Timestamp(required=True, allow_none=True)
    database = fields.Str(required=True, allow_none=True, attribute="database_name")
    restored_tables = fields.List(fields.Str(), required=True, allow_none=True)
    message = fields.Str(required=True, allow_none=True)


class Drill(Schema):
    id = fields.Int(required=True)
    type = fields.Str(required=True, attribute="kind", metadata={"enum": ["DUMP", "POINT_IN_TIME"]})
    file_name = fields.Str(required=True, attribute="backup_name")
    version = fields.Str(required=True, attribute="release")
    began_at = Timestamp(required=True)
    ended_at = Timestamp(required=True)
    error = fields.Str(required=True, allow_none=True)
    rpo_seconds = fields.Decimal(required=True, allow_none=True, as_string=True, attribute="rpo_s")
    rto_seconds = fields.Decimal(required=True, allow_none=True, as_string=True, attribute="rto_s")
    row_count = fields.Int(required=True, allow_none=True)


class RestoreQuery(Schema):
    dry_run = fields.Bool(load_default=True)
    confirm_token = fields.Str(load_default=None, validate=validate.Length(1, 100))
    tables = fields.Str(load_default=None, metadata={"description": "422 restore_is_whole."})


class Asked(Schema):
    backup_id = fields.Int(required=True, strict=True, validate=validate.Range(1, 2**63 - 1))


class Confirmation(Schema):
    backup_id = fields.Int(required=True)
    confirm_token = fields.Str(required=True)
    expires_at = Timestamp(required=True)


class SystemInfo(Schema):
    name = fields.Str(required=True)
    version = fields.Str(required=True)
    environment = fields.Str(required=True)
    database = fields.Str(required=True, attribute="database_name")
    server_version = fields.Str(required=True)
    database_size_bytes = fields.Int(required=True, attribute="size_bytes")
    migration = fields.Str(required=True)
    archives_log = fields.Bool(required=True)
    log_archived_at = Timestamp(required=True, allow_none=True)
    now = Timestamp(required=True)


@routes.endpoint(
    "GET", "/system/info", permission="system:manage", admin=True, returns=SystemInfo()
)
async def get_system_info(call: Call) -> Any:
    """Get what runs here, on which database, and whether its log is archived."""
    demand_operator(call)
    server = await q.system.get_server(call.conn)
    archiver = await q.system.get_archiver(call.conn)
    return {
        **server, "name": "SOFinance", "version": __version__,
        "environment": call.settings.environment, "migration": health.known_migrations()[-1],
        "archives_log": archiver.is_archiving, "log_archived_at": archiver.last_archived_at,
    }  # fmt: skip


@routes.endpoint(
    "GET", "/system/backups", permission="system:manage", admin=True, query=BackupQuery(),
    returns=paged(Backup()),
)  # fmt: skip
async def list_backups(call: Call) -> Any:
    """List backups, the newest first."""
    demand_operator(call)
    asked = {"kind": call.query["type"], "status": call.query["status"]}
    rows = await q.system.list_backups(call.conn, limit=call.limit, offset=call.offset, **asked)
    return rows, await q.system.count_backups(call.conn, **asked)


@routes.endpoint(
    "GET", "/system/backups/stats", permission="system:manage", admin=True, returns=BackupStats()
)
async def get_backup_stats(call: Call) -> Any:
    """Sum up the backups: how many, how large, when the last one was."""
    demand_operator(call)
    stats = await q.system.get_backup_stats(call.conn)
    return {**stats, "total_size_mb": stats.total_size_bytes // BYTES_OF_MB}


@routes.endpoint(
    "GET", "/system/backups/{id}", permission="system:manage", admin=True, returns=Backup()
)
async def get_backup(call: Call) -> Any:
    """Get a backup."""
    demand_operator(call)
    return await q.system.get_backup(call.conn, id=call.path["id"])


@routes.endpoint(
    "GET", "/system/backups/{id}/download", permission="system:manage", admin=True,
    own_transactions=True, idempotent=False, status=200, media_type="application/octet-stream",
    refuses=(409, 503),
)  # fmt: skip
async def download_backup(call: Call) -> Any:
    """Get the file of a backup, as it is kept: encrypted, or not at all."""
    demand_operator(call)
    async with call.transaction(mode=Mode.READ) as conn:
        backup = await q.system.get_backup(conn, id=call.path["id"])
    if not backup.is_encrypted or backup.file_name is None or backup.size_bytes is None:
        raise ApiError(
            "backup_not_encrypted",
            "Only a backup that is encrypted leaves the server: set BACKUP_ENCRYPTION_KEY.",
            status=409,
        )
    answer = await download(call.settings, backup.location, backup.file_name, backup.size_bytes)
    async with call.transaction() as conn:
        await audit.write(
            call, conn, org_id=call.org_id, user_id=call.user_id,
            session_id=call.principal.session_id, action="system.download_backup",
            entity="backup", entity_id=backup.id, after={"file_name": backup.file_name},
            severity=audit.CRITICAL,
        )  # fmt: skip
    return answer


@routes.endpoint(
    "POST", "/system/backups", permission="system:manage", admin=True, returns=Backup(),
    status=202, location="/system/backups/{id}", entity="backup",
)  # fmt: skip
@routes.endpoint(
    "POST", "/system/backup/create", permission="system:manage", admin=True, returns=Backup(),
    status=202, location="/system/backups/{id}", entity="backup",
)  # fmt: skip
async def create_backup(call: Call) -> Any:
    """Have a worker take a backup of all organisations; it is PENDING until that has ended."""
    demand_operator(call)
    backup_id = await q.system.begin_backup(
        call.conn, kind="FULL", location="", org_id=call.org_id, user_id=call.user_id
    )
    await ask(call, "CREATE", backup_id)
    return await q.system.get_backup(call.conn, id=backup_id)


@routes.endpoint(
    "DELETE", "/system/backups/{id}", permission="system:manage", admin=True, entity="backup",
    refuses=(409,),
)  # fmt: skip
async def delete_backup(call: Call) -> None:
    """Give up a backup, whose files a worker removes; never the only good one of its kind."""
    demand_operator(call)
    call.before(await q.system.get_backup(call.conn, id=call.path["id"]))
    call.audit(severity=audit.CRITICAL)
    outcome = await q.system.give_up_backup(call.conn, id=call.path["id"])
    if outcome == "last":
        raise ApiError(
            "backup_last_good_stays", "This is the only good backup of its kind.", status=409
        )
    if outcome != "done":
        raise ApiError(
            "backup_busy", "Something is being done with this backup: wait for its end.", status=409
        )
    await ask_worker(call)


@routes.endpoint(
    "POST", "/system/backups/{id}/verify", permission="system:manage", admin=True,
    returns=RestoreJob(), status=202, location="/system/restore-jobs/{id}", entity="backup_task",
    refuses=(409, 429),
)  # fmt: skip
async def verify_backup(call: Call) -> Any:
    """Have a worker restore a backup elsewhere, compare every table and verify the books."""
    demand_operator(call)
    return await ask(call, "VERIFY", (await good(call)).id)


@routes.endpoint(
    "POST", "/system/restore/confirm-token", permission="system:manage", admin=True, body=Asked(),
    returns=Confirmation(), status=201, idempotent=False, entity="backup_confirmation",
)  # fmt: skip
async def create_confirmation(call: Call) -> Any:
    """Give the caller a word that confirms to restore a backup: good once, for five minutes."""
    demand_operator(call)
    backup = await q.system.get_backup(call.conn, id=call.body["backup_id"])
    word = secrets.token_urlsafe(32)
    expires_at = await q.system.issue_backup_confirmation(
        call.conn, token_hash=hashed(word), backup_id=backup.id, org_id=call.org_id,
        user_id=call.user_id, good_for_s=GOOD_FOR_S,
    )  # fmt: skip
    call.audit(entity_id=backup.id, severity=audit.WARNING)
    return {"backup_id": backup.id, "confirm_token": word, "expires_at": expires_at}


@routes.endpoint(
    "POST", "/system/backups/{id}/restore", permission="system:manage", admin=True,
    query=RestoreQuery(), returns=RestoreJob(), status=202,
    location="/system/restore-jobs/{id}", entity="backup_task",
    refuses=(409, 429),
)  # fmt: skip
@routes.endpoint(
    "POST", "/system/backups/{id}/restore/async", permission="system:manage", admin=True,
    query=RestoreQuery(), returns=RestoreJob(), status=202,
    location="/system/restore-jobs/{id}", entity="backup_task",
    refuses=(409, 429),
)  # fmt: skip
async def restore_backup(call: Call) -> Any:
    """Have a worker restore a backup: elsewhere and away again, or into a new database.

    Never over a database that is there. With `dry_run=false` the caller's `confirm_token` is used
    up; the live database stays as it is until the operator's command puts the new one in place.
    """
    demand_operator(call)
    if call.query["tables"] is not None:
        message = "A backup comes back whole: tables of another moment contradict the rest."
        raise ApiError("restore_is_whole", message, status=422)
    backup = await good(call)
    if call.query["dry_run"]:
        return await ask(call, "DRY_RUN", backup.id)
    outcome = await q.system.use_backup_confirmation(
        call.conn, token_hash=hashed(call.query["confirm_token"] or ""), backup_id=backup.id,
        org_id=call.org_id, user_id=call.user_id,
    )  # fmt: skip
    if outcome != "good":
        code, message = REFUSALS[outcome]
        raise ApiError(code, message, status=409)
    call.audit(severity=audit.CRITICAL)
    return await ask(call, "RESTORE", backup.id)


@routes.endpoint(
    "GET", "/system/restore-jobs", permission="system:manage", admin=True,
    returns=paged(RestoreJob()),
)  # fmt: skip
async def list_restore_jobs(call: Call) -> Any:
    """List what workers were asked to do with backups, the latest first."""
    demand_operator(call)
    rows = await q.system.list_backup_tasks(call.conn, limit=call.limit, offset=call.offset)
    return rows, await q.system.count_backup_tasks(call.conn)


@routes.endpoint(
    "GET", "/system/restore-jobs/{id}", permission="system:manage", admin=True,
    returns=RestoreJob(),
)  # fmt: skip
async def get_restore_job(call: Call) -> Any:
    """Get what came of a job."""
    demand_operator(call)
    return await q.system.get_backup_task(call.conn, id=call.path["id"])


@routes.endpoint(
    "POST", "/system/restore-jobs/{id}/cancel", permission="system:manage", admin=True,
    returns=RestoreJob(), entity="backup_task", refuses=(409,),
)  # fmt: skip
async def cancel_restore_job(call: Call) -> Any:
    """Have a job broken off: at once before it began, else within seconds by its worker."""
    demand_operator(call)
    call.before(await q.system.get_backup_task(call.conn, id=call.path["id"]))
    if not await q.system.cancel_backup_task(call.conn, id=call.path["id"]):
        raise ApiError("restore_job_ended", "This job has ended already.", status=409)
    return await q.system.get_backup_task(call.conn, id=call.path["id"])


@routes.endpoint(
    "GET", "/system/drills", permission="system:manage", admin=True, returns=paged(Drill())
)
async def list_drills(call: Call) -> Any:
    """List drills: what was restored elsewhere, how long it took, what would have been lost."""
    demand_operator(call)
    rows = await q.system.list_drills(call.conn, limit=call.limit, offset=call.offset)
    return rows, await q.system.count_drills(call.conn)


async def good(call: Call) -> Any:
    """Return the backup of the path; backup_not_restorable (409) unless a dump that succeeded."""
    backup = await q.system.get_backup(call.conn, id=call.path["id"])
    if backup.status != "SUCCESS" or backup.kind != "FULL":
        raise ApiError(
            "backup_not_restorable",
            "Only a FULL backup that succeeded is restored here; for a BASE there is a command.",
            status=409,
        )
    return backup


async def ask(call: Call, kind: str, backup_id: int) -> Any:
    """Ask a worker; restore_jobs_busy (429) while two are being restored."""
    task_id = await q.system.ask_backup_task(
        call.conn, kind=kind, backup_id=backup_id, org_id=call.org_id, user_id=call.user_id,
        restore_count_max=RESTORE_COUNT_MAX,
    )  # fmt: skip
    if task_id is None:
        raise ApiError(
            "restore_jobs_busy",
            "Two backups are being restored already: wait for one of them, or cancel it.",
            status=429,
            headers={"Retry-After": "60"},
        )
    return await q.system.get_backup_task(call.conn, id=task_id)


async def ask_worker(call: Call) -> None:
    """Have a worker look what there is to be done."""
    await q.jobs.steer_job(call.conn, name="backup-tasks", action="run")


def hashed(word: str) -> bytes:
    """Return what is kept of a word."""
    return hashlib.sha256(word.encode()).digest()

"""The attacks on archives of the audit log: rows made to vanish, lines that are not the rows."""

from __future__ import annotations

from tests.attacks.forgery import Attack, insert
from tests.attacks.master_data import ARCHIVE, LINES, NOBODY, OLD, OWNER, ROWS, change, row

FORGED = {"lines_sha256": "sha256('x')"}
CHAINED = "(select sha256(chain || {}) from audit_archive where archive_no = 1)"
FIRST = ARCHIVE.replace("'b'", "'a'")

VALID = {"an archive": insert("audit_archive", {"org_id": ":org", **ROWS["audit_archive"]})}

ARCHIVES = (
    row("An archive of other lines than the log's, chained as it should be",
        "audit_archive_matches", "audit_archive",
        **FORGED, chain=CHAINED.format("sha256('x')")),
    row("An archive that is said to have one row more", "audit_archive_matches", "audit_archive",
        row_count=f"(select count(*) + 1 {OLD})", first_id="1"),
    row("An archive that would take what its lines do not have", "audit_archive_matches",
        "audit_archive", last_id="9000000000"),
    row("An archive whose lines are of one row less", "audit_archive_matches", "audit_archive",
        first_id=f"(select max(id) {OLD})", row_count="1"),
    row("An archive of another month", "audit_archive_matches", "audit_archive",
        month="'2020-03-01'"),
    row("An archive of what was done lately", "audit_archive_is_old", "audit_archive",
        month="date_trunc('month', now())::date"),
    row("An archive of last month", "audit_archive_is_old", "audit_archive",
        month="(date_trunc('month', now()) - interval '1 month')::date"),
    row("An archive dated back, to be old", "privilege", "audit_archive",
        archived_at="'2099-01-01'"),
    row("An archive of no month", "audit_archive_of_a_month", "audit_archive",
        month="'2020-02-02'"),
    row("An archive without rows", "audit_archive_counts_rows", "audit_archive", row_count="0"),
    row("An archive without a byte", "audit_archive_has_bytes", "audit_archive", size_bytes="0"),
    row("A digest of another length", "audit_archive_are_digests", "audit_archive",
        object_sha256=r"'\x00'"),
    row("An archive in another organisation's store", "audit_archive_object_is_own",
        "audit_archive", object_key="'org/' || (:org + 1) || '/audit/' || repeat('b', 32)"),
    row("An archive that is somebody's file", "audit_archive_object_is_own", "audit_archive",
        object_key="'org/' || :org || '/attachments/' || repeat('b', 32)"),
    row("One object for two archives", "audit_archive_object_taken", "audit_archive",
        object_key=FIRST),
    row("An archive of which no upload began", "audit_archive_is_uploaded", "audit_archive",
        object_key=ARCHIVE.replace("'b'", "'f'")),
    row("A number left out", "audit_archive_follows", "audit_archive", archive_no="3"),
    row("An archive chained to nothing", "audit_archive_follows", "audit_archive",
        chain=f"sha256({LINES})"),
    row("The first archive once more", "audit_archive_pk", "audit_archive", archive_no="1"),
    change("An archive of an organisation that does not exist", "audit_archive_organisation_known",
           NOBODY + insert("audit_archive", {
               "org_id": "0", **ROWS["audit_archive"], "first_id": "1", "last_id": "1",
               "row_count": "1", "lines_sha256": "sha256('x')", "chain": "sha256('x')",
               "object_key": "'org/0/audit/' || repeat('b', 32)"})),
    row("The removal of an archive's object", "storage_tombstone_spares_archives",
        "storage_tombstone", object_key=FIRST),
    change("An archive changed", "audit_archive_is_final",
           "update audit_archive set row_count = 2", OWNER),
    change("A row of the log deleted by the application", "privilege",
           "delete from audit_log where created_at < '2020-03-01'"),
    change("A row deleted by the owner, whom audit_log_goes_archived minds", "audit_log_is_final",
           "delete from audit_log where created_at < '2020-03-01'", OWNER),
    Attack("An archive of rows that went into the one before",
           "audit_archive_matches",
           insert("audit_archive", {"org_id": ":org", **ROWS["audit_archive"]})
           + insert("storage_tombstone", {"org_id": ":org", "due_at": "now()",
                                          "object_key": ARCHIVE.replace("'b'", "'c'")})
           + insert("audit_archive", {
               "org_id": ":org", **ROWS["audit_archive"], "archive_no": "3",
               "first_id": "1", "last_id": "2", "row_count": "1", **FORGED,
               "chain": "(select sha256(chain || sha256('x')) from audit_archive"
                        " where archive_no = 2)",
               "object_key": ARCHIVE.replace("'b'", "'c'")})),
)  # fmt: skip

"""What a file is by its bytes, whatever its name or its sender says; anything else is refused.

Nothing that a browser would run is on the list: no HTML, no SVG, no XML, no scripts.
"""

from __future__ import annotations

import codecs
import re

# Enough for every signature.
HEAD_BYTES = 4_096
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    # Excel before 2007, among others of its time.
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/vnd.ms-excel"),
)
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
TEXT, CSV = "text/plain", "text/csv"
ALLOWED = (
    "image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf",
    "application/vnd.ms-excel", XLSX, TEXT, CSV,
)  # fmt: skip
# As what each is saved: a system goes by the name, not by the content type. A text may be a script,
# an old Excel file an installer, and an image a page as well.
EXTENSIONS = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/gif": (".gif",),
    "image/webp": (".webp",),
    "application/pdf": (".pdf",),
    "application/vnd.ms-excel": (".xls",),
    XLSX: (".xlsx",),
    TEXT: (".txt", ".csv", ".log", ".md"),
    CSV: (".csv",),
}
# No text of ours has these; tabs and line ends it has.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
MARKUP = re.compile(r"\s*<")


def content_type(head: bytes, filename: str) -> str | None:
    """Return what a file is that begins like this; None for what is not on the list."""
    for signature, kind in SIGNATURES:
        if head.startswith(signature):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"PK\x03\x04"):
        return XLSX if is_workbook(head, filename) else None
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if CONTROL.search(text) or MARKUP.match(text):
        return None
    return CSV if filename.lower().endswith(".csv") else TEXT


def is_workbook(head: bytes, filename: str) -> bool:
    """Say whether a zip begins as those that Excel and others write, and is called so."""
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    is_named = filename.lower().endswith(".xlsx")
    return is_named and first.startswith((b"[Content_Types].xml", b"_rels/", b"docProps/", b"xl/"))


def saved_as(filename: str, content_type: str) -> str:
    """Return the name under which a file is saved: one of its kind, if it is on the list."""
    known = EXTENSIONS.get(content_type)
    return filename if known is None or filename.lower().endswith(known) else filename + known[0]


class TextCheck:
    """Holds that a text is one to its end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def accepts(self, chunk: bytes, *, is_last: bool = False) -> bool:
        """Say whether this may be the text's next part."""
        try:
            return CONTROL.search(self._decoder.decode(chunk, is_last)) is None
        except UnicodeDecodeError:
            return False

"""What the audit log and the logs never hold: secrets and personal data. Declared here, once.

The audit log keeps that a field was there and that it changed, not what it said: who must know that
looks at the thing itself, while it is there. A log is kept for years and read by many, and nobody
can take out of it what a person asks us to forget.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
from marshmallow import fields

from sofinance.infra.fields import RawJson

if TYPE_CHECKING:
    from collections.abc import Callable

    from marshmallow import Schema

    # Takes a value and how it was before, or MISSING.
    Masker = Callable[[Any, Any], Any]

# What lets somebody in.
SECRET_KEYS = frozenset({
    "password", "new_password", "current_password", "old_password", "temporary_password",
    "password_hash", "pin", "pin_hash", "secret", "secret_hash", "totp_secret", "token",
    "token_hash", "access_token", "refresh_token", "break_glass_token", "reset_token", "api_key",
    "key", "code", "codes", "recovery_codes", "otp", "otpauth_uri", "pairing_code",
    "device_secret", "device_token", "till_token", "till_credential",
    "captcha_token", "confirm_token", "ticket",
})  # fmt: skip
# What tells who somebody is, or how to reach them.
PERSONAL_KEYS = frozenset({
    "email", "phone", "mobile", "address", "first_name", "last_name", "full_name", "user_name",
    "username", "birth_date", "customer_name", "customer_email", "customer_phone",
    "customer_address", "cashier_name", "supplier_name", "admin_email", "admin_first_name",
    "admin_last_name",
})  # fmt: skip
# What anybody may write anything into: addresses and numbers in it are blanked out.
FREE_TEXT_KEYS = frozenset({"notes", "memo", "reason"})
# Where to something is sent: whoever gave the address may have put a secret into it.
URL_KEYS = frozenset({"url"})
# Things that are people: of them, these are personal too.
PEOPLE = frozenset({"customer", "customers", "user", "users", "cashier", "supplier", "suppliers"})
PERSONAL_OF_PEOPLE = frozenset({"name", "notes"})
# Codes that are no secrets: they name a thing of master data, or an error.
PLAIN_CODES_OF = frozenset({"accounts", "account", "tax", "tax_code", "denial"})

SECRET, PERSONAL, PERSONAL_CHANGED = "[secret]", "[personal]", "[personal, changed]"
FREE_TEXT, URL = "free text", "url"
MISSING: Any = object()

USER_OF_URL = re.compile(r"//[^/@]*@")
EMAIL = r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
# An international number, or whatever somebody calls a phone.
PHONE = r"(?<![\w.])\+[1-9](?:[ ().-]{0,2}\d){6,14}(?!\d)"
NAMED_PHONE = r"(?P<phone>(?:phone|mobile)[\"']?\s*[=:]\s*[\"']?)\+?[\d(][\d ().-]{4,20}\d"
PEOPLE_IN_TEXT = re.compile(f"{NAMED_PHONE}|{PHONE}|{EMAIL}", re.IGNORECASE)


def mask_text(text: str) -> str:
    """Blank out e-mail addresses and phone numbers in a text."""
    if "@" not in text and "+" not in text and "phone" not in text and "mobile" not in text:
        return text
    return PEOPLE_IN_TEXT.sub(lambda found: (found["phone"] or "") + PERSONAL, text)


def mask_url(url: str) -> str:
    """Blank out who signs in by a URL, and the values of its query; their names stay."""
    there, mark, query = url.partition("?")
    there = USER_OF_URL.sub(f"//{SECRET}@", there)
    if not mark:
        return there
    named = (part.partition("=") for part in query.split("&"))
    return f"{there}?" + "&".join(f"{name}={SECRET}" if is_ else SECRET for name, is_, _ in named)


def mask(value: Any, before: Any = MISSING, *, kind: str = "") -> Any:
    """Return a value without secrets and personal data; `kind` is what it is, such as users.

    Given how it was before, it says which of them changed.
    """
    if hasattr(value, "items"):
        return {
            name: _mask_field(name, inner, _part(before, name), kind)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(inner, _part(before, place), kind=kind) for place, inner in enumerate(value)]
    if isinstance(value, orjson.Fragment):
        return mask(orjson.loads(orjson.dumps(value)), before, kind=kind)
    return value


def _mask_field(name: str, value: Any, before: Any, kind: str) -> Any:
    if value is None:
        return None
    found = kind_of_field(name, kind)
    if found == SECRET:
        return SECRET
    if found == PERSONAL:
        return PERSONAL if before is MISSING or before == value else PERSONAL_CHANGED
    if isinstance(value, str) and found is not None:
        return mask_url(value) if found == URL else mask_text(value)
    if isinstance(value, str | int | float | bool):
        return value
    return mask(value, before, kind=name)


def kind_of_field(name: str, kind: str) -> str | None:
    """Return SECRET, PERSONAL, FREE_TEXT, URL or None for a field of a thing."""
    if name in SECRET_KEYS:
        return None if name == "code" and kind in PLAIN_CODES_OF else SECRET
    if name in PERSONAL_KEYS or (name in PERSONAL_OF_PEOPLE and kind in PEOPLE):
        return PERSONAL
    if name in URL_KEYS:
        return URL
    return FREE_TEXT if name in FREE_TEXT_KEYS else None


def _part(before: Any, name: Any) -> Any:
    if before is MISSING:
        return MISSING
    try:
        return before[name]
    except (KeyError, IndexError, TypeError):
        return MISSING


def compile_mask(schema: Schema, kind: str) -> Masker | None:
    """Turn a schema into a function that does what `mask` does to what the schema dumps.

    It touches nothing but the fields that are masked; None where there is none.
    """
    parts = []
    for name, field in schema.dump_fields.items():
        key = field.data_key or name
        masker = _masker(field, key, kind)
        if masker is not None:
            parts.append((key, masker))
    if not parts:
        return None

    def masked(data: Any, before: Any) -> Any:
        out = dict(data)
        for key, masker in parts:
            value = out[key]
            if value is not None:
                out[key] = masker(value, _part(before, key))
        return out

    return masked


def _masker(field: fields.Field[Any], name: str, kind: str) -> Masker | None:
    if kind_of_field(name, kind) is not None:
        return lambda value, before: _mask_field(name, value, before, kind)
    match field:
        case fields.List():
            return _each(_masker(field.inner, name, kind))
        case fields.Nested():
            inner = compile_mask(field.schema, name)
            return _each(inner) if field.many or field.schema.many else inner
    if isinstance(field, fields.Dict | fields.Raw | RawJson):
        # What may hold anything is looked through each time.
        return lambda value, before: mask(value, before, kind=name)
    return None


def _each(masker: Masker | None) -> Masker | None:
    if masker is None:
        return None
    return lambda values, before: [
        masker(value, _part(before, place)) for place, value in enumerate(values)
    ]

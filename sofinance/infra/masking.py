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
    from marshmallow import Schema

# What lets somebody in.
SECRET_KEYS = frozenset({
    "password", "new_password", "current_password", "old_password", "temporary_password",
    "password_hash", "pin", "pin_hash", "secret", "secret_hash", "totp_secret", "token",
    "token_hash", "access_token", "refresh_token", "break_glass_token", "reset_token", "api_key",
    "key", "code", "codes", "recovery_codes", "otp", "otpauth_uri", "pairing_code",
    "device_secret", "device_token", "till_token", "till_credential",
    "captcha_token",
})  # fmt: skip
# What tells who somebody is, or how to reach them.
PERSONAL_KEYS = frozenset({
    "email", "phone", "mobile", "address", "first_name", "last_name", "full_name", "user_name",
    "username", "birth_date", "customer_name", "customer_email", "customer_phone",
    "customer_address", "cashier_name", "supplier_name", "admin_email", "admin_first_name",
    "admin_last_name",
})  # fmt: skip
# Things that are people: of them, these are personal too.
PEOPLE = frozenset({"customer", "customers", "user", "users", "cashier", "supplier", "suppliers"})
PERSONAL_OF_PEOPLE = frozenset({"name", "notes"})
# Codes that are no secrets: they name a thing of master data, or an error.
PLAIN_CODES_OF = frozenset({"accounts", "account", "tax", "tax_code", "denial"})

SECRET, PERSONAL, PERSONAL_CHANGED = "[secret]", "[personal]", "[personal, changed]"
MISSING: Any = object()

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
    if isinstance(value, str | int | float | bool):
        return value
    return mask(value, before, kind=name)


def kind_of_field(name: str, kind: str) -> str | None:
    """Return SECRET, PERSONAL or None for a field of a thing."""
    if name in SECRET_KEYS:
        return None if name == "code" and kind in PLAIN_CODES_OF else SECRET
    if name in PERSONAL_KEYS or (name in PERSONAL_OF_PEOPLE and kind in PEOPLE):
        return PERSONAL
    return None


def _part(before: Any, name: Any) -> Any:
    if before is MISSING:
        return MISSING
    try:
        return before[name]
    except (KeyError, IndexError, TypeError):
        return MISSING


def needs_mask(schema: Schema, kind: str) -> bool:
    """Say whether what a schema dumps may hold anything that is masked."""
    return any(
        kind_of_field(field.data_key or name, kind) is not None
        or _inner_needs_mask(field, field.data_key or name)
        for name, field in schema.dump_fields.items()
    )


def _inner_needs_mask(field: fields.Field[Any], name: str) -> bool:
    match field:
        case fields.List():
            return _inner_needs_mask(field.inner, name)
        case fields.Nested():
            return needs_mask(field.schema, name)
    # What may hold anything is looked through each time.
    return isinstance(field, fields.Dict | fields.Raw | RawJson)

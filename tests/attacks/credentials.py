"""What is tried with credentials, bodies and addresses, how it is refused, and by which test."""

from __future__ import annotations

from typing import NamedTuple


class Refused(NamedTuple):
    """One attempt, what it is answered, and the test that makes it: file and function."""

    what: str
    answer: str
    test: str


TOKENS, SESSIONS = "attacks/test_tokens.py", "api/test_sessions.py"
WIRE, PROXIES = "infra/test_wire.py", "infra/test_proxies.py"
CREDENTIALS = (
    Refused(
        "A refresh token used again", "401 `refresh_token_reused`; its session ends",
        f"{SESSIONS}::test_a_reused_refresh_token_ends_the_session",
    ),
    Refused(
        "One refresh token used by many at once", "one wins, then the session ends",
        f"{SESSIONS}::test_of_many_uses_at_once_one_wins_and_the_session_ends",
    ),
    Refused(
        "A token without a signature (`alg: none`, in any spelling)", "401 `unauthorized`",
        f"{TOKENS}::test_a_token_without_a_signature_is_refused",
    ),
    Refused(
        "Another algorithm, another key under the right `kid`, a `kid` that is a path",
        "401 `unauthorized`", f"{TOKENS}::test_a_key_is_not_confused_with_another",
    ),
    Refused(
        "HS256 with the bytes of the public key", "401 `unauthorized`",
        f"{TOKENS}::test_a_public_key_is_no_secret",
    ),
    Refused(
        "Expired, not yet valid, another issuer, another audience, another organisation",
        "401 `unauthorized`",
        f"{TOKENS}::test_a_token_of_ours_that_says_something_else_is_refused",
    ),
    Refused(
        "Somebody else's session in one's own token", "401 `unauthorized`",
        f"{TOKENS}::test_a_session_of_somebody_else_is_refused",
    ),
    Refused(
        "The token of a revoked session, of a disabled user", "401 `unauthorized`",
        f"{TOKENS}::test_a_token_dies_with_its_session_and_with_its_user",
    ),
    Refused(
        "A token of before a change of the secret", "good until the change is over, then 401",
        f"{TOKENS}::test_tokens_live_through_a_change_of_the_secret_then_die",
    ),
    Refused(
        "A token of before a rotation of key files", "good until the overlap is over, then none",
        "infra/test_keys.py::test_old_tokens_live_through_a_rotation_then_die",
    ),
    Refused(
        "A disabled user's refresh token", "401 `invalid_refresh_token`",
        f"{SESSIONS}::test_a_disabled_user_renews_nothing",
    ),
    Refused(
        "A code of a second factor used again", "401 `invalid_code`",
        "api/test_second_factor.py::test_a_code_is_good_once",
    ),
    Refused(
        "One code of a second factor used by many at once", "one wins",
        "api/test_second_factor.py::test_of_many_uses_of_one_code_one_wins",
    ),
    Refused(
        "A made-up `X-Forwarded-For`, to be counted as somebody else", "429 `rate_limited` still",
        "infra/test_rate_limit_over_http.py::test_a_made_up_address_does_not_help",
    ),
    Refused(
        "`X-Forwarded-For` from who is no proxy of ours", "the peer's address counts",
        f"{PROXIES}::test_headers_of_a_stranger_are_not_read",
    ),
    Refused(
        "`X-Forwarded-For` and `Forwarded` that disagree", "the peer's address counts",
        f"{PROXIES}::test_two_headers_that_agree_are_believed_and_two_that_do_not_are_not",
    ),
    Refused(
        "A body that is too large, sized or in chunks", "413 `payload_too_large`",
        f"{WIRE}::test_a_body_has_a_limit",
    ),
    Refused(
        "A body that does not come", "408 `request_timeout`", f"{WIRE}::test_a_body_has_its_time"
    ),
    Refused(
        "A compressed body", "415 `unsupported_content_encoding`",
        f"{WIRE}::test_a_compressed_body_is_not_inflated",
    ),
    Refused(
        "A key given twice, NaN, huge numbers, too deep, broken UTF-8", "400 `malformed_json`",
        f"{WIRE}::test_json_is_strict",
    ),
    Refused(
        "A body that is not JSON", "415 `unsupported_media_type`",
        f"{WIRE}::test_a_body_is_json_in_utf_8",
    ),
    Refused(
        "A head that is too large, or has too many headers", "431 `head_too_large`",
        f"{WIRE}::test_a_head_has_a_limit",
    ),
    Refused(
        "What is no HTTP", "400 `malformed_request`",
        f"{WIRE}::test_what_is_no_http_is_refused",
    ),
    Refused(
        "Twenty wrong passwords", "429 `rate_limited`",
        "infra/test_rate_limit_over_http.py::test_twenty_wrong_passwords_are_too_many",
    ),
)  # fmt: skip

"""The attacks on the rules about access: who gives themselves, or others, what they do not have.

A transaction works for a user (app.user_id) in a session (app.session_id); both are set here as the
service sets them. `rich` is a clerk who may read the audit log, which no manager may; `local` is a
manager who has one branch, in which `packer` works.
"""

from __future__ import annotations

from tests.attacks.forgery import Attack, insert
from tests.attacks.master_data import OWNER, ROWS


def by(user: str, session: str) -> str:
    """Return the settings of a transaction of a user in a session."""
    return (
        f"select set_config('app.user_id', {user}::text, true),"
        f" set_config('app.session_id', {session}::text, true);\n"
    )


MANAGER = by(":manager", ":manager_session")
LOCAL = by(":local", ":local_session")
# As an API key acts: for a user, in no session.
MACHINE = by(":manager", "''")
STOLEN = by(":manager", ":admin_session")
EXPIRED = (
    "update user_session set revoked_at = now(), revoked_why = 'sign_out'"
    " where id = :manager_session;\n" + MANAGER
)


def row(table: str, **changes: str) -> str:
    """Return the insert of a row that would be accepted, but for the changes."""
    values = {name.rstrip("_"): value for name, value in changes.items()}
    return insert(table, {"org_id": ":org", **ROWS[table], **values})


NEW_CASHIER = row("app_user", all_branches="true")
GRANT = row("role_grant", role_="'SHIFT_LEAD'")
ALLOW = row(
    "user_permission",
    user_id=":packer",
    permission="'sales:void'",
    effect="'ALLOW'",
)
KEY = row("api_key", user_id=":manager")
DISABLED = "update app_user set is_active = false where id = :packer;\n"
ENDED = "update api_key set revoked_at = now();\n"
BRANCH = row("user_branch", user_id=":packer", branch_id=":branch2")

VALID = {
    "a cashier made by a manager": MANAGER + NEW_CASHIER,
    "a permission given to a role by a manager": MANAGER + GRANT,
    "a permission given to a user by a manager": MANAGER + ALLOW,
    "a branch given by a manager": MANAGER + BRANCH,
    "a key made by a manager": MANAGER + KEY,
    "a second factor begun by its owner": MANAGER + row("user_totp", user_id=":manager"),
    "a PIN chosen by its owner": MANAGER + row("user_pin", user_id=":manager"),
    "a second factor taken away by a manager": MANAGER + "delete from user_totp;\n",
    "a user disabled by the service itself": DISABLED,
}


def cases(rule: str, *attacks: tuple[str, str]) -> tuple[Attack, ...]:
    """Return attacks that one rule refuses."""
    return tuple(Attack(what, rule, sql) for what, sql in attacks)


ACCESS = (
    # -- by nobody: the service itself has nothing to give --
    *cases(
        "app_user_within_own_access",
        ("A user made by nobody", NEW_CASHIER),
        ("An administrator made by nobody", row("app_user", role_="'ADMIN'", all_branches="true")),
        ("A role given by nobody", "update app_user set role = 'MANAGER' where id = :packer;\n"),
        ("All branches given by nobody", "update app_user set all_branches = true;\n"),
        ("A password set by nobody", "update app_user set password_hash = 'x' where id = :user;\n"),
        ("An address led elsewhere", "update app_user set email = 'x@y.z' where id = :packer;\n"),
        (
            "A disabled user brought back by nobody",
            DISABLED + "update app_user set is_active = true where id = :packer;\n",
        ),
    ),
    *cases(
        "role_grant_within_own_access",
        ("A permission for a role by nobody", GRANT),
        ("A role's DENY taken away by nobody", "delete from role_grant where effect = 'DENY';\n"),
        ("A role's DENY turned by nobody", "update role_grant set effect = 'ALLOW';\n"),
    ),
    *cases(
        "user_permission_within_own_access",
        ("A permission for a user by nobody", ALLOW),
        ("A user's DENY taken away by nobody", "delete from user_permission;\n"),
        (
            "A user's DENY turned by nobody",
            "update user_permission set effect = 'ALLOW' where effect = 'DENY';\n",
        ),
    ),
    *cases("user_branch_within_own_access", ("A branch given by nobody", BRANCH)),
    *cases("api_key_of_oneself", ("A key made by nobody", KEY)),
    # -- second factors and PINs, which are everybody's own --
    *cases(
        "user_totp_of_oneself",
        ("A second factor enrolled by nobody", row("user_totp")),
        ("A second factor for somebody else", MANAGER + row("user_totp", user_id=":packer")),
        ("A second factor enrolled by a key", MACHINE + row("user_totp", user_id=":manager")),
    ),
    *cases(
        "recovery_code_of_oneself",
        ("Recovery codes made by nobody", row("recovery_code")),
        ("Recovery codes to somebody else's account", MANAGER + row("recovery_code")),
    ),
    *cases(
        "user_pin_of_oneself",
        ("A PIN chosen by nobody", row("user_pin")),
        ("A PIN for somebody else", MANAGER + row("user_pin", user_id=":packer")),
        ("A cashier's PIN changed", MANAGER + "update user_pin set pin_hash = '$argon2id$';\n"),
        ("A PIN chosen by a key", MACHINE + row("user_pin", user_id=":manager")),
    ),
    *cases(
        "user_totp_taken_within_own_access",
        ("A second factor taken away by nobody", "delete from user_totp;\n"),
        ("A second factor taken away by a key", MACHINE + "delete from user_totp;\n"),
        ("One of somebody in more branches", LOCAL + "delete from user_totp;\n"),
    ),
    # -- by a key, or somebody else's or an ended session --
    *(
        Attack(f"{what} {how}", rule, who + sql)
        for what, rule, sql in (
            ("A user", "app_user_changed_in_session", NEW_CASHIER),
            ("A role", "org_role_changed_in_session", row("org_role")),
            ("A role's permission", "role_grant_changed_in_session", GRANT),
            ("A user's permission", "user_permission_changed_in_session", ALLOW),
            ("A user's branch", "user_branch_changed_in_session", BRANCH),
            ("A key", "api_key_changed_in_session", KEY),
        )
        for how, who in (
            ("by an API key", MACHINE),
            ("in an administrator's session", STOLEN),
            ("in a session that has ended", EXPIRED),
        )
    ),
    *cases(
        "app_user_changed_in_session",
        ("An address changed by a key", MACHINE + "update app_user set email = 'x@y.z'"
         " where id = :packer;\n"),
        ("A password set by a key", MACHINE + "update app_user set password_hash = 'x'"
         " where id = :packer;\n"),
    ),
    *cases(
        "api_key_changed_in_session",
        ("A key that ends another", MACHINE + "update api_key set revoked_at = now();\n"),
    ),
    # -- by a manager --
    *cases(
        "app_user_access_not_by_oneself",
        ("A manager who makes himself an administrator", MANAGER
         + "update app_user set role = 'ADMIN' where id = :manager;\n"),
        ("A manager who leaves", MANAGER
         + "update app_user set is_active = false where id = :manager;\n"),
        ("A manager who gives himself all branches", LOCAL
         + "update app_user set all_branches = true where id = :local;\n"),
    ),
    *cases(
        "app_user_admin_by_admin",
        ("An administrator made by a manager", MANAGER
         + row("app_user", role_="'ADMIN'", all_branches="true")),
        ("A user made an administrator by a manager", MANAGER
         + "update app_user set role = 'ADMIN', all_branches = true where id = :packer;\n"),
        ("An administrator's password set by a manager", MANAGER
         + "update app_user set password_hash = 'x' where id = :user;\n"),
        ("An administrator disabled by a manager", MANAGER
         + "update app_user set is_active = false where id = :user;\n"),
    ),
    *cases(
        "app_user_within_own_access",
        ("The password of somebody with more rights", MANAGER
         + "update app_user set password_hash = 'x' where id = :rich;\n"),
        ("The address of somebody with more rights", MANAGER
         + "update app_user set email = 'x@y.z' where id = :rich;\n"),
        ("Somebody with more rights disabled", MANAGER
         + "update app_user set is_active = false where id = :rich;\n"),
        ("The password of somebody in more branches", LOCAL
         + "update app_user set password_hash = 'x' where id = :cashier;\n"),
        ("All branches given by who has one", LOCAL
         + "update app_user set all_branches = true where id = :packer;\n"),
    ),
    *cases(
        "user_permission_within_own_access",
        ("A permission that the giver lacks", MANAGER
         + row("user_permission", user_id=":packer", permission="'audit:read'", effect="'ALLOW'")),
        ("A permission taken that the taker lacks", MANAGER
         + "delete from user_permission where user_id = :rich;\n"),
        ("A permission taken from who has more", MANAGER
         + row("user_permission", user_id=":rich", permission="'products:read'")),
    ),
    *cases(
        "user_permission_not_of_oneself",
        ("A permission for oneself", MANAGER
         + row("user_permission", user_id=":manager", effect="'ALLOW'")),
    ),
    *cases(
        "role_grant_not_of_own_role",
        ("A permission for one's own role", MANAGER
         + row("role_grant", role_="'MANAGER'", permission="'audit:read'")),
    ),
    *cases(
        "role_grant_within_own_access",
        ("A permission for a role that the giver lacks", MANAGER
         + row("role_grant", role_="'SHIFT_LEAD'", permission="'roles:write'")),
        ("A role's DENY taken away by who lacks it", MANAGER + "delete from role_grant"
         " where effect = 'DENY';\n"),
        ("A role changed in all branches by who has one", LOCAL + GRANT),
    ),
    *cases(
        "user_branch_within_own_access",
        ("A branch that the giver lacks", LOCAL + BRANCH),
        ("A branch taken from somebody in more of them", LOCAL + "delete from user_branch"
         " where user_id = :cashier;\n"),
    ),
    *cases(
        "user_branch_not_of_oneself",
        ("A branch for oneself", LOCAL + row("user_branch", user_id=":local",
                                             branch_id=":branch2")),
    ),
    *cases(
        "user_session_ended_within_own_access",
        ("Somebody with more rights signed out", MANAGER + "update user_session set"
         " revoked_at = now(), revoked_why = 'administrator' where user_id = :rich;\n"),
    ),
    # -- keys --
    *cases("api_key_of_oneself", ("A key for somebody else", MANAGER + row("api_key"))),
    *cases(
        "api_key_within_own_access",
        ("A key that may more than its user", MANAGER
         + row("api_key", user_id=":manager", permissions="'{audit:read}'")),
        ("A key with a permission that there is not", MANAGER
         + row("api_key", user_id=":manager", permissions="'{sales:steal}'")),
        ("A key for another organisation's branch", MANAGER
         + row("api_key", user_id=":manager", branch_ids="array[:other_branch]")),
        ("A key for a branch that its user lacks", LOCAL
         + row("api_key", user_id=":local", branch_ids="array[:branch, :branch2]")),
    ),
    *cases(
        "api_key_ended_within_own_access",
        ("The key of somebody with more rights ended", MANAGER
         + "update api_key set revoked_at = now() where user_id = :rich;\n"),
    ),
    *cases(
        "api_key_ends_for_good",
        ("A key prolonged", "update api_key set expires_at = expires_at + interval '1 day';\n"),
        ("A key that was ended brought back", ENDED + "update api_key set revoked_at = null;\n"),
    ),
    *cases("privilege", ("Another secret for a key", "update api_key set secret_hash = 'x';\n")),
    *cases(
        "api_key_replaces_known",
        ("A key in the place of none", MANAGER + row("api_key", user_id=":manager", replaces="0")),
    ),
    *cases(
        "api_key_replaces_once",
        ("A key rotated twice", MANAGER
         + 2 * row("api_key", user_id=":manager", replaces="(select min(id) from api_key)")),
    ),
    # -- the last administrator --
    *cases(
        "app_user_keeps_an_admin",
        ("Every administrator disabled", "update app_user set is_active = false;\n"),
    ),
    Attack(
        "The last administrator demoted by the owner",
        "app_user_keeps_an_admin",
        "update app_user set role = 'MANAGER' where role = 'ADMIN';\n",
        OWNER,
    ),
)  # fmt: skip

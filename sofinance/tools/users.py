"""`sofinance user`: let somebody sign in, past the rules that bind requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.command import (
    EXIT_GOOD,
    EXIT_USAGE,
    SetupError,
    database_options,
    row_number,
)
from sofinance.infra.passwords import hash_password
from sofinance.tools.orgs import (
    connected,
    one_organisation,
    org_option,
    person_options,
    read_password,
    tell_password,
    write_audit,
)

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    user = subparsers.add_parser("user", help="create a user")
    actions = user.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser(
        "create",
        help="let somebody sign in",
        description="Let somebody sign in, past the rules that nobody gives what they do not "
        "have: so it works as sofinance_owner (OWNER_URL). Everyday changes are made through the "
        "API (POST /users). The password is asked for on the terminal unless one of the options "
        "says otherwise.",
    )
    database_options(create)
    org_option(create, "the only one")
    create.add_argument(
        "--role", required=True, type=str.upper,
        help="ADMIN, MANAGER, CASHIER, INVENTORY_CLERK, ACCOUNTANT or one of the organisation's",
    )  # fmt: skip
    where = create.add_mutually_exclusive_group()
    where.add_argument(
        "--branch", type=row_number, action="append", default=[], metavar="ID", dest="branch_ids",
        help="a branch in which the user sees and acts; again for each",
    )  # fmt: skip
    where.add_argument(
        "--all-branches", action="store_true", help="in every branch, later ones too (ADMIN is)"
    )
    person_options(create, "")
    create.add_argument(
        "--temporary", action="store_true", help="the password must be changed at first sign-in"
    )
    create.set_defaults(run=create_user)


async def create_user(args: argparse.Namespace) -> int:
    """Let somebody sign in to an organisation."""
    all_branches = args.all_branches or args.role == "ADMIN"
    if all_branches and args.branch_ids:
        raise SetupError("An ADMIN has all branches: leave --branch out.", exit_code=EXIT_USAGE)
    if not all_branches and not args.branch_ids:
        raise SetupError(
            "Say where the user works: --branch ID for each branch, or --all-branches.",
            exit_code=EXIT_USAGE,
        )
    password = read_password(args)
    async with connected(args, as_owner=True) as database:
        org_id = await one_organisation(database, args.org)
        password_hash = await hash_password(password)
        async with database.tenant(org_id) as conn:
            user = await q.users.create_user(
                conn,
                org_id=org_id,
                email=args.email.strip().lower(),
                password_hash=password_hash,
                first_name=args.first_name.strip(),
                last_name=args.last_name.strip(),
                role=args.role,
                all_branches=all_branches,
                must_change_password=args.temporary,
            )
            await q.users.give_branches(
                conn, org_id=org_id, user_id=user.id, own_ids=args.branch_ids
            )
            await write_audit(
                conn, org_id, b"users.create_user", b"users", user.id,
                {"email": user.email, "role": user.role},
            )  # fmt: skip
    print(f"user {user.id} {user.email} {user.role} of organisation {org_id}")
    tell_password(args, password)
    return EXIT_GOOD

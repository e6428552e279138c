-- What was changed for everybody on the server, and by whom. Triggers write it (0040).

-- name: name_operator :exec
-- Say who is at work, until the end of the transaction: what it changes is written down as theirs.
select set_config('app.operator', :who, true);

-- name: list_operator_actions :many
-- List what was done, the latest first.
-- nullable: before_id
select
    id,
    done_at,
    action,
    subject,
    before::text as before,
    after::text as after,
    who,
    database_role,
    host(client_address) as client_address,
    org_id,
    user_id
from operator_action
where :before_id::bigint is null or id < :before_id
order by id desc
limit :limit;

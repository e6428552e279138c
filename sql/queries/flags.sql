-- Flags: what is set for whom, on the whole server and in an organisation, and how much is used.
-- A percentage of 100 is on, 0 is off.

-- name: set_override :one
-- Set a flag for the organisation, or for one of its branches or users.
-- nullable: branch_id, user_id, changed_by
insert into flag_override (org_id, flag, branch_id, user_id, percent, changed_by)
values (:org_id, :flag, :branch_id, :user_id, :percent, :changed_by)
on conflict on constraint flag_override_taken do update
    set
        percent = excluded.percent,
        changed_by = excluded.changed_by,
        changed_at = now()
returning id, flag, branch_id, user_id, percent, changed_by, changed_at;

-- name: delete_override :one
-- Let a flag be again for a scope as it is around it.
-- nullable: branch_id, user_id
delete from flag_override
where
    org_id = :org_id and user_id is not distinct from :user_id
    and branch_id is not distinct from :branch_id and flag = :flag
returning id, flag, branch_id, user_id, percent, changed_by, changed_at;

-- name: set_flag :exec
-- Set a flag for the whole server, or kill it; without a percentage it is as declared.
-- nullable: percent
select set_flag(:name, :percent, :is_killed);

-- name: note_flags :exec
-- Make flags known and add up how often they were asked for.
select note_flags(:names, :counts);

-- name: delete_overrides :exec
-- Forget what an organisation has set for a flag that is retired.
delete from flag_override
where org_id = :org_id and flag = :flag;

-- name: retire_flag :value
-- Forget a flag that no release declares; null when there is none of this name.
select retire_flag(:name) as is_known;

-- name: find_override :maybe
-- Read what is set for exactly this scope.
-- nullable: branch_id, user_id
select
    id,
    flag,
    branch_id,
    user_id,
    percent,
    changed_by,
    changed_at
from flag_override
where
    org_id = :org_id and user_id is not distinct from :user_id
    and branch_id is not distinct from :branch_id and flag = :flag;

-- name: list_settings :many
-- List all that is set for a user in a branch, of every flag, at each level.
-- nullable: branch_id, user_id
-- not null: flag, scope, percent
select
    flag,
    'organisation' as scope,
    percent
from flag_override
where org_id = :org_id and user_id is null and branch_id is null
union all
select
    flag,
    'branch' as scope,
    percent
from flag_override
where org_id = :org_id and user_id is null and branch_id = :branch_id
union all
select
    flag,
    'user' as scope,
    percent
from flag_override
where org_id = :org_id and user_id = :user_id
union all
select
    name as flag,
    case when is_killed then 'killed' else 'global' end as scope,
    coalesce(percent, 0) as percent
from flag
where is_killed or percent is not null
limit :limit;

-- name: list_overrides :many
-- List what the organisation has set for a flag: for all of it first, then branches, then users.
select
    id,
    flag,
    branch_id,
    user_id,
    percent,
    changed_by,
    changed_at
from flag_override
where org_id = :org_id and flag = :flag
order by user_id nulls first, branch_id nulls first
limit :limit offset :offset;

-- name: count_overrides :value
-- Count what list_overrides pages through.
-- not null: total
select count(*) as total
from flag_override
where org_id = :org_id and flag = :flag;

-- name: list_flags :many
-- List what the server knows of every flag; a release declares some dozen.
select
    name,
    percent,
    is_killed,
    declared_at,
    changed_at,
    last_evaluated_at,
    evaluation_count
from flag
order by name
limit :limit;

-- name: list_organisations :many
-- List the numbers of all organisations with what holds for a flag in each, and on the server.
-- not null: org_id, is_killed
select
    found.org_id,
    found.percent,
    flag.percent as global_percent,
    coalesce(flag.is_killed, false) as is_killed
from list_flagged_organisations(:flag) as found
left join flag on flag.name = :flag;

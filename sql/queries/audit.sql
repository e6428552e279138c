-- The audit log, read: who did what to which thing, when and from where.

-- name: list_logs :many
-- List what was done in a span of time, the latest first, after the row `before_id`.
-- `search` looks in what was done, the request's id, the address and the client's program.
-- nullable: before_id, action, entity_type, entity_id, user_id, severity, search
select
    audit_log.id,
    audit_log.created_at,
    audit_log.action,
    audit_log.entity_type,
    audit_log.entity_id,
    audit_log.user_id,
    app_user.first_name || ' ' || app_user.last_name as user_name,
    audit_log.session_id,
    audit_log.api_key_id,
    audit_log.before,
    audit_log.after,
    audit_log.request_id,
    host(audit_log.ip) as ip,
    audit_log.user_agent,
    audit_log.severity
from audit_log
left join app_user
    on audit_log.org_id = app_user.org_id and audit_log.user_id = app_user.id
where
    audit_log.org_id = :org_id
    and audit_log.created_at >= :starts_at
    and audit_log.created_at < :ends_at
    -- Where a page begins is a bound of the index, so that a late page costs what the first does.
    and audit_log.created_at <= case
        when :before_id::bigint is null then :ends_at
        else (
            select seen.created_at from audit_log as seen
            where seen.org_id = :org_id and seen.id = :before_id
        )
    end
    and (
        :before_id::bigint is null
        or audit_log.id < :before_id
        or audit_log.created_at < (
            select seen.created_at from audit_log as seen
            where seen.org_id = :org_id and seen.id = :before_id
        )
    )
    and (:action::text is null or audit_log.action = :action)
    and (:entity_type::text is null or audit_log.entity_type = :entity_type)
    and (:entity_id::bigint is null or audit_log.entity_id = :entity_id)
    and (:user_id::bigint is null or audit_log.user_id = :user_id)
    and (:severity::text is null or audit_log.severity = :severity)
    and (
        :search::text is null
        or concat_ws(
            ' ', audit_log.action, audit_log.request_id, host(audit_log.ip), audit_log.user_agent
        ) ilike '%' || :search || '%'
    )
order by audit_log.created_at desc, audit_log.id desc
limit :limit;

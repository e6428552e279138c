-- Care of tables and indexes, as their owner: vacuum, statistics, bloat. PostgreSQL itself writes
-- the commands, so that names are quoted by whom they belong to.

-- name: limit_statements :exec
-- Bound the statements of this session: none outlives the window, none waits long for a lock.
select
    set_config('statement_timeout', :statement_timeout_ms::text, false),
    set_config('lock_timeout', :lock_timeout_ms::text, false);

-- name: list_leftovers :many
-- List what a rebuild that was broken off left: indexes that are not valid.
-- not null: name, command
select
    class.relname as name,
    format('drop index concurrently if exists %I', class.relname) as command
from pg_index as index
inner join pg_class as class on index.indexrelid = class.oid
where
    class.relnamespace = 'public'::regnamespace and not index.indisvalid
    and class.relname ~ '_ccnew[0-9]*$'
order by class.relname
limit :limit;

-- name: list_uncared_tables :many
-- List our tables that were not vacuumed since, those that wait longest first.
-- not null: name, command, dead_count, live_count, size_bytes
select
    stat.relname as name,
    stat.n_dead_tup as dead_count,
    stat.n_live_tup as live_count,
    pg_total_relation_size(stat.relid) as size_bytes,
    format('vacuum (analyze) %I', stat.relname) as command
from pg_stat_user_tables as stat
inner join pg_class as class on stat.relid = class.oid
where
    stat.schemaname = 'public' and pg_has_role(class.relowner, 'usage')
    and coalesce(stat.last_vacuum, '-infinity') < :since
order by stat.last_vacuum nulls first, stat.relname
limit :limit;

-- name: list_bloated_indexes :many
-- List indexes of 1 MiB and more that are over twice as large as their entries need, worst first.
-- An estimate: entries times the width of their columns, where that is fixed, and 32 bytes for
-- each that is not; pages nine tenths full. What is deduplicated is smaller, and never listed.
-- not null: name, command, size_bytes, needed_bytes
with ours as (
    select
        class.oid,
        class.relname as name,
        greatest(class.reltuples, 0) as entry_count,
        pg_relation_size(class.oid) as size_bytes,
        (
            select sum(case when attribute.attlen > 0 then attribute.attlen else 32 end)
            from pg_attribute as attribute
            where attribute.attrelid = class.oid
        ) as key_bytes
    from pg_index as index
    inner join pg_class as class on index.indexrelid = class.oid
    inner join pg_am as method on class.relam = method.oid
    where
        class.relnamespace = 'public'::regnamespace and method.amname = 'btree'
        and index.indisvalid and pg_has_role(class.relowner, 'usage')
),

needed as (
    select
        name,
        size_bytes,
        (8192 * 2 + entry_count * (12 + key_bytes) / 0.9)::bigint as needed_bytes
    from ours
)

select
    name,
    size_bytes,
    needed_bytes,
    format('reindex index concurrently %I', name) as command
from needed
where size_bytes >= 1048576 and size_bytes > 2 * needed_bytes
order by size_bytes - needed_bytes desc, name
limit :limit;

-- Row security by branch, beneath that by organisation: the application sees its caller's branches.
-- Only the application's role is bound; rules that run as the owner see the organisation.
-- app.branch_ids is 'all' or an array such as '{1,2}'; without it the policies raise.
-- depends: 0012_identity
set local lock_timeout = '4s';
set local role sofinance_owner;

-- IS NOT NULL, since the planner takes that for nearly always true, as it is: any other test it
-- would take for one that leaves few rows, and would sort whole lists for their first page.
create function is_branch_seen(branch_id bigint) returns boolean
language sql stable parallel safe
return case current_setting('app.branch_ids')
    when 'all' then 1
    else array_position(current_setting('app.branch_ids')::bigint[], branch_id)
end is not null;
comment on function is_branch_seen(bigint) is
'Says whether a branch is one of the transaction''s (app.branch_ids); raises without them.';
grant execute on function is_branch_seen(bigint) to sofinance_app;

create policy branch on branch as restrictive to sofinance_app
using (is_branch_seen(id)) with check (true);
create policy branch on till as restrictive to sofinance_app using (is_branch_seen(branch_id));
create policy branch on stock as restrictive to sofinance_app using (is_branch_seen(branch_id));
create policy branch on goods_receipt as restrictive to sofinance_app
using (is_branch_seen(branch_id));
create policy branch on stock_movement as restrictive to sofinance_app
using (is_branch_seen(branch_id));
create policy branch on sale as restrictive to sofinance_app using (is_branch_seen(branch_id));
create policy branch on account as restrictive to sofinance_app
using (branch_id is null or is_branch_seen(branch_id));

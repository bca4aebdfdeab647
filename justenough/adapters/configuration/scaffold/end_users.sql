-- Ends the database users of jobs. A database needs this once, run by a superuser or by the role that Vault logs in as, and again after each
-- change: `justenough doctor` names a database whose copy is older than the product's.
--
-- A job may hold any lock that its own statements can take, for as long as its transactions live, and its sessions may outlive its process. So
-- access ends in steps that wait for nothing which a job can hold, each committed by itself and bounded, none left out because an earlier one
-- failed: take its rights (a REVOKE of its groups, which no job can block), end its sessions, forbid its login, drop what it
-- owns, look again, drop its role.
-- docs/decisions/0065-access-dies-before-its-role.md has the locks that were tried.

SET LOCAL search_path = pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION public.je_sql_version() RETURNS integer LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp RETURN 1;

-- One step of ending a user, as whoever calls, who can end nobody else. A user that is gone already is fine. Raises what keeps the step from
-- being done. Steps: rights (its groups), sessions, login, owned (rights and objects of its own), drop.
CREATE OR REPLACE FUNCTION public.je_end_step(login text, step text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    victim oid := pg_catalog.to_regrole(pg_catalog.quote_ident(login));
    granted record;
BEGIN
    IF victim IS NULL THEN
        RETURN;
    END IF;
    CASE step
    WHEN 'rights' THEN
        FOR granted IN
            SELECT g.rolname AS name, r.rolname AS grantor FROM pg_catalog.pg_auth_members m
            JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles r ON r.oid = m.grantor
            WHERE m.member = victim AND pg_catalog.pg_has_role(m.grantor, 'USAGE')
        LOOP
            EXECUTE pg_catalog.format('REVOKE %I FROM %I GRANTED BY %I', granted.name, login, granted.grantor);
        END LOOP;
    WHEN 'sessions' THEN
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = victim;
        PERFORM pg_catalog.pg_terminate_backend(pid, 500) FROM pg_catalog.pg_stat_activity WHERE usesysid = victim;
        -- Without this, one transaction sees the sessions of its first look only.
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usesysid = victim) THEN
            RAISE EXCEPTION 'a session of this user does not end';
        END IF;
    WHEN 'login' THEN
        EXECUTE pg_catalog.format('ALTER ROLE %I NOLOGIN', login);
    WHEN 'owned' THEN
        EXECUTE pg_catalog.format('DROP OWNED BY %I CASCADE', login);
    WHEN 'drop' THEN
        -- No role is dropped whose session lives: nobody could tell afterwards whose it was.
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usesysid = victim) THEN
            PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = victim;
            RAISE EXCEPTION 'a session of this user lives';
        END IF;
        EXECUTE pg_catalog.format('DROP ROLE %I', login);
        -- A login that was half done when it was forbidden shows itself here, and keeps its role until the next call.
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usesysid = victim) THEN
            RAISE EXCEPTION 'a session of this user has just begun';
        END IF;
    END CASE;
END $$;
REVOKE ALL ON FUNCTION public.je_end_step(text, text) FROM PUBLIC;

-- What is left of a user: its sessions, its login, its rights, the objects that it owns here; an empty array if its role is empty, so that nobody
-- can use it for anything; null if the role is gone. Rights are memberships and what was granted to it in this database.
CREATE OR REPLACE FUNCTION public.je_left_of(login text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.array_remove(ARRAY[
        (SELECT pg_catalog.format('%s sessions', pg_catalog.count(*)) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid HAVING pg_catalog.count(*) > 0),
        CASE WHEN r.rolcanlogin THEN 'a login' END,
        CASE WHEN r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls THEN 'attributes' END,
        CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid) THEN 'groups' END,
        CASE WHEN EXISTS (
            SELECT FROM pg_catalog.pg_shdepend d WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = r.oid
            AND d.deptype IN ('a', 'o') AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
        ) THEN 'rights or objects of its own' END], NULL)
    FROM pg_catalog.pg_roles r WHERE r.rolname = login
$$;

-- Ends one user, for Vault, which commits before: COMMIT, CALL public.je_end_user(NAME). It raises if the user could still do anything. An
-- empty role that somebody's lock keeps from being dropped is dropped later by the sweep.
CREATE OR REPLACE PROCEDURE public.je_end_user(login text) LANGUAGE plpgsql AS $$
DECLARE
    step text;
    what_is_left text[];
BEGIN
    SET search_path = pg_catalog, pg_temp;
    FOREACH step IN ARRAY ARRAY['rights', 'sessions', 'login', 'owned', 'drop'] LOOP
        BEGIN
            PERFORM public.je_end_step(login, step);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'je_end_user: % of % is not done: %', step, login, SQLERRM;
        END;
        COMMIT;
    END LOOP;
    what_is_left := public.je_left_of(login);
    IF pg_catalog.cardinality(what_is_left) > 0 THEN
        RAISE EXCEPTION 'je_end_user: % still has %', login, what_is_left;
    END IF;
END $$;
REVOKE ALL ON PROCEDURE public.je_end_user(text) FROM PUBLIC;

-- One step of ending every user that carries this job's id, for the worker, which runs the steps one by one. Returns the names for which it was
-- done; why it was not is a warning. It runs as its owner, so it believes nothing it is given: a job id has one exact form, names are compared
-- as text (no pattern), and no superuser or maker of roles is ever ended. The step `holders` ends the sessions of jobs' users, this job's or
-- others', that keep its roles from being dropped, or that hold so many locks that PostgreSQL has no room for those of others.
CREATE OR REPLACE FUNCTION public.je_end_users(job text, step text DEFAULT 'all') RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    login text;
    holder record;
    pids integer[] := '{}';
BEGIN
    IF job IS NULL OR job !~ '^j-[a-z0-9]{1,8}-[0-9a-z]{26}$' THEN
        RAISE EXCEPTION 'je_end_users: not a job id' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    IF step = 'all' THEN
        FOREACH step IN ARRAY ARRAY['rights', 'sessions', 'login', 'owned'] LOOP
            PERFORM public.je_end_users(job, step);
        END LOOP;
        step := 'drop';
    END IF;
    -- Inline, and for all users at once: a transaction that ran this before holds every lock that it needs to run again.
    IF step = 'sessions' THEN
        FOR holder IN
            SELECT a.pid, a.usename::text AS name FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
            WHERE position(job IN r.rolname) > 0 AND NOT r.rolsuper AND NOT r.rolcreaterole
        LOOP
            PERFORM pg_catalog.pg_terminate_backend(holder.pid);
            pids := pids || holder.pid;
            RETURN NEXT holder.name;
        END LOOP;
        -- All of them were told to end; now wait for each.
        WHILE pg_catalog.clock_timestamp() < pg_catalog.statement_timestamp() + interval '1 second' AND EXISTS (
            SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY (pids)
        ) LOOP
            PERFORM pg_catalog.pg_sleep(0.005);
            PERFORM pg_catalog.pg_stat_clear_snapshot();
        END LOOP;
        RETURN;
    END IF;
    IF step = 'holders' THEN
        -- One by one: as a condition of the query, the planner could end a session before it has looked at the others.
        FOR holder IN
            SELECT a.pid, a.usename::text AS name FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
            WHERE r.rolname ~ 'j-[a-z0-9]{1,8}-[0-9a-z]{26}' AND NOT r.rolsuper AND NOT r.rolcreaterole AND a.pid IN (
                SELECT l.pid FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_roles kept ON kept.oid = l.objid
                WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND l.granted
                    AND position(job IN kept.rolname) > 0
                UNION ALL
                SELECT l.pid FROM pg_catalog.pg_locks l GROUP BY l.pid HAVING pg_catalog.count(*) > 1000 AND (
                    SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE NOT fastpath
                ) > 0.8 * pg_catalog.current_setting('max_locks_per_transaction')::integer
                    * (pg_catalog.current_setting('max_connections')::integer + pg_catalog.current_setting('max_prepared_transactions')::integer)
            )
        LOOP
            PERFORM pg_catalog.pg_terminate_backend(holder.pid);
            RETURN NEXT holder.name;
        END LOOP;
        RETURN;
    END IF;
    FOR login IN
        SELECT r.rolname FROM pg_catalog.pg_roles r
        WHERE position(job IN r.rolname) > 0 AND r.rolname <> 'space-' || job AND NOT r.rolsuper AND NOT r.rolcreaterole
    LOOP
        -- Whoever called waits, and a call that is cut off would have done nothing.
        EXIT WHEN pg_catalog.clock_timestamp() > pg_catalog.statement_timestamp() + interval '4 seconds';
        BEGIN
            PERFORM public.je_end_step(login, step);
            RETURN NEXT login;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'je_end_users: % of % is not done: %', step, login, SQLERRM;
        END;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION public.je_end_users(text, text) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION public.je_sql_version(), public.je_left_of(text) TO PUBLIC;

-- A member of a group may take the group's policies and default rights apart (DROP OWNED BY, ALTER DEFAULT PRIVILEGES FOR ROLE). Where a superuser
-- runs this, no user whom a maker of roles made may run either. A job cannot turn an event trigger off. It runs in the sessions of superusers,
-- too, so its function must be a superuser's own, whoever else runs this file.
DO $do$
BEGIN
    IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        DROP EVENT TRIGGER IF EXISTS je_guard_groups;
        DROP FUNCTION IF EXISTS public.je_guard_groups();
        CREATE FUNCTION public.je_guard_groups() RETURNS event_trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM pg_catalog.pg_roles made JOIN pg_catalog.pg_auth_members m ON m.roleid = made.oid
                JOIN pg_catalog.pg_roles maker ON maker.oid = m.member
                WHERE made.rolname = session_user AND m.admin_option AND maker.rolcreaterole AND NOT maker.rolsuper
            ) AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR rolcreaterole)) THEN
                RAISE EXCEPTION 'users of jobs may not run %', tg_tag USING ERRCODE = 'insufficient_privilege';
            END IF;
        END $$;
        CREATE EVENT TRIGGER je_guard_groups ON ddl_command_start WHEN TAG IN ('DROP OWNED', 'ALTER DEFAULT PRIVILEGES')
            EXECUTE FUNCTION public.je_guard_groups();
    END IF;
END $do$;

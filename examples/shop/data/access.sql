-- Who may see and do what in the shop, as group roles that Vault grants to the short-lived users it makes. Run by the superuser,
-- in one transaction, after schema.sql and whenever this file changes; so every statement may meet its own earlier effect.
--
--   shop_orders_read_<tenant>     its orders and tickets          shop_refunds_read_<tenant>    its refunds
--   shop_orders_write_<tenant>    status of its orders, tickets   shop_refunds_write_<tenant>   new refunds for its orders
--   shop_customers_read_<tenant>  its customers                   shop_orders_admin             all orders and tickets, helper tables
--   shop_observer  sees every role and session                    shop_reaper  may only end one job's users: je_end_users(job)
--   je_vault       the login with which Vault makes users; shop_leftovers gets what a user owned when it is ended

CREATE OR REPLACE FUNCTION pg_temp.group_role(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole(quote_ident(name)) IS NULL THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', name);
    END IF;
    EXECUTE format('GRANT %I TO je_vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', name);
END $$;

CREATE OR REPLACE FUNCTION pg_temp.row_policy(name text, target text, command text, grantee text, condition text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP POLICY IF EXISTS %I ON %I', name, target);
    EXECUTE format('CREATE POLICY %I ON %I FOR %s TO %I %s', name, target, command, grantee,
        CASE command WHEN 'INSERT' THEN format('WITH CHECK (%s)', condition)
                     WHEN 'SELECT' THEN format('USING (%s)', condition)
                     ELSE format('USING (%s) WITH CHECK (%s)', condition, condition) END);
END $$;

-- Nobody connects anywhere or makes anything unless a group says so.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
REVOKE ALL ON DATABASE shop FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

DO $$
BEGIN
    IF to_regrole('je_vault') IS NULL THEN
        CREATE ROLE je_vault LOGIN CREATEROLE CONNECTION LIMIT 50;
    END IF;
    IF to_regrole('shop_leftovers') IS NULL THEN
        CREATE ROLE shop_leftovers NOLOGIN;
    END IF;
END $$;
-- Vault's login has the rights of the users it made (so it can end their sessions and what they own), and of nobody else.
ALTER ROLE je_vault SET createrole_self_grant TO 'set, inherit';
GRANT CONNECT ON DATABASE shop TO je_vault WITH GRANT OPTION;
GRANT shop_leftovers TO je_vault WITH ADMIN FALSE, INHERIT TRUE, SET TRUE;
GRANT USAGE, CREATE ON SCHEMA public TO shop_leftovers;

ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE tickets ENABLE ROW LEVEL SECURITY;
ALTER TABLE refunds ENABLE ROW LEVEL SECURITY;

DO $$
DECLARE
    t text;
    own text;
    r text;
BEGIN
    FOR t IN SELECT tenant FROM tenants LOOP
        own := format('tenant = %L', t);

        r := 'shop_orders_read_' || t;
        PERFORM pg_temp.group_role(r);
        EXECUTE format('GRANT CONNECT ON DATABASE shop TO %I', r);
        EXECUTE format('GRANT SELECT ON orders, tickets TO %I', r);
        PERFORM pg_temp.row_policy(r, 'orders', 'SELECT', r, own);
        PERFORM pg_temp.row_policy(r, 'tickets', 'SELECT', r, own);

        r := 'shop_orders_write_' || t;
        PERFORM pg_temp.group_role(r);
        EXECUTE format('GRANT CONNECT ON DATABASE shop TO %I', r);
        EXECUTE format('GRANT SELECT (id, tenant), INSERT, UPDATE (status) ON orders TO %I', r);
        EXECUTE format('GRANT SELECT (id, tenant), INSERT, UPDATE (status) ON tickets TO %I', r);
        PERFORM pg_temp.row_policy(r, 'orders', 'ALL', r, own);
        PERFORM pg_temp.row_policy(r, 'tickets', 'ALL', r, own);

        r := 'shop_refunds_read_' || t;
        PERFORM pg_temp.group_role(r);
        EXECUTE format('GRANT CONNECT ON DATABASE shop TO %I', r);
        EXECUTE format('GRANT SELECT ON refunds TO %I', r);
        PERFORM pg_temp.row_policy(r, 'refunds', 'SELECT', r, own);

        -- A writer reads back only the numbers of what it wrote (RETURNING id), never reasons or amounts.
        r := 'shop_refunds_write_' || t;
        PERFORM pg_temp.group_role(r);
        EXECUTE format('GRANT CONNECT ON DATABASE shop TO %I', r);
        EXECUTE format('GRANT SELECT (id, tenant, order_id, ticket_id), INSERT ON refunds TO %I', r);
        PERFORM pg_temp.row_policy(r || '_rows', 'refunds', 'SELECT', r, own);
        PERFORM pg_temp.row_policy(r, 'refunds', 'INSERT', r, own);

        r := 'shop_customers_read_' || t;
        PERFORM pg_temp.group_role(r);
        EXECUTE format('GRANT CONNECT ON DATABASE shop TO %I', r);
        EXECUTE format('GRANT SELECT ON customers TO %I', r);
        PERFORM pg_temp.row_policy(r, 'customers', 'SELECT', r, own);
    END LOOP;

    r := 'shop_orders_admin';
    PERFORM pg_temp.group_role(r);
    GRANT CONNECT ON DATABASE shop TO shop_orders_admin;
    GRANT USAGE, CREATE ON SCHEMA public TO shop_orders_admin;
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders, tickets TO shop_orders_admin;
    PERFORM pg_temp.row_policy(r, 'orders', 'ALL', r, 'true');
    PERFORM pg_temp.row_policy(r, 'tickets', 'ALL', r, 'true');

    PERFORM pg_temp.group_role('shop_observer');
    GRANT CONNECT ON DATABASE shop TO shop_observer;
    GRANT pg_monitor TO shop_observer;

    PERFORM pg_temp.group_role('shop_reaper');
    GRANT CONNECT ON DATABASE shop TO shop_reaper;
END $$;

-- Ends every user that carries this job's id: no new logins, open sessions cut, what it owned handed to shop_leftovers, the role
-- dropped. Returns the names that are gone. One that could not be dropped (a session that does not end, another's lock on what it owns) is
-- a warning, can no longer log in, and stays visible in pg_roles: so one stuck user never saves the others, and no role is dropped whose
-- session lives. It runs as its owner, so it believes nothing it is given: a job id has one exact form, names are compared as text (no
-- pattern), and no superuser or maker of roles is ever ended.
CREATE OR REPLACE FUNCTION je_end_users(job text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    victim record;
BEGIN
    IF job IS NULL OR job !~ '^j-[a-z0-9]{1,8}-[0-9a-z]{26}$' THEN
        RAISE EXCEPTION 'je_end_users: not a job id' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Access first, for all of them: what may fail below is undone below, and this stays.
    FOR victim IN
        SELECT r.oid, r.rolname FROM pg_roles r
        WHERE position('-token-' || job || '-' IN r.rolname) > 0 AND NOT r.rolsuper AND NOT r.rolcreaterole
    LOOP
        BEGIN
            EXECUTE format('ALTER ROLE %I NOLOGIN', victim.rolname);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'je_end_users: % may still log in: %', victim.rolname, SQLERRM;
        END;
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = victim.oid;
    END LOOP;
    FOR victim IN
        SELECT r.oid, r.rolname FROM pg_roles r
        WHERE position('-token-' || job || '-' IN r.rolname) > 0 AND NOT r.rolsuper AND NOT r.rolcreaterole
    LOOP
        -- Whoever called waits ten seconds, and a call that is cut off would have forbidden no login.
        EXIT WHEN clock_timestamp() > statement_timestamp() + interval '5 seconds';
        BEGIN
            PERFORM pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usesysid = victim.oid;
            -- Without this, one transaction sees the sessions of its first look only.
            PERFORM pg_stat_clear_snapshot();
            IF EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = victim.oid) THEN
                RAISE EXCEPTION 'a session does not end';
            END IF;
            EXECUTE format('REASSIGN OWNED BY %I TO shop_leftovers', victim.rolname);
            EXECUTE format('DROP OWNED BY %I', victim.rolname);
            EXECUTE format('DROP ROLE %I', victim.rolname);
            -- A login that was half done when it was forbidden shows itself here, and keeps its role until the next call.
            PERFORM pg_stat_clear_snapshot();
            IF EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = victim.oid) THEN
                RAISE EXCEPTION 'a session has just begun';
            END IF;
            RETURN NEXT victim.rolname;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'je_end_users: % is not gone: %', victim.rolname, SQLERRM;
        END;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION je_end_users(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION je_end_users(text) TO shop_reaper;

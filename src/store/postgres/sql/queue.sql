-- Renews tickets, and marks keys as watched where the ticket is NULL. Keys come in order, so that no two wait for each
-- other. For each, behind the clock: 0 its ticket is gone, 1 it waits, 2 it is its turn; of a watched key 3 free, 4 held.
CREATE OR REPLACE FUNCTION @renew@(p_not_after bigint, p_keys text[], p_tickets uuid[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
    i integer;
    answer bigint[] := ARRAY[1, now_us];
BEGIN
    FOR n IN 1 .. cardinality(p_keys) LOOP
        IF p_tickets[n] IS NULL THEN
            INSERT INTO @table@ AS l (key, fence, mode, watched) VALUES (p_keys[n], 0, 0, now_us + @watch@)
                ON CONFLICT (key) DO UPDATE SET watched = greatest(l.watched, excluded.watched)
                RETURNING * INTO r;
            r := @pruned@(r, now_us);
            answer := answer || CASE WHEN r.tokens IS NULL THEN 3 ELSE 4 END::bigint;
            CONTINUE;
        END IF;
        SELECT * INTO r FROM @table@ WHERE key = p_keys[n] FOR UPDATE;
        now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
        r := @pruned@(r, now_us);
        i := array_position(r.tickets, p_tickets[n]);
        IF i IS NULL THEN
            answer := answer || 0::bigint;
        ELSE
            r.ticket_ends[i] := now_us + @ticket@;
            PERFORM @put@(r);
            answer := answer || CASE WHEN i <= @turns@(r) THEN 2 ELSE 1 END::bigint;
        END IF;
    END LOOP;
    RETURN answer;
END $$;

-- Gives a ticket up, and calls the next. {1, now}
CREATE OR REPLACE FUNCTION @leave@(p_not_after bigint, p_key text, p_ticket uuid) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
    i integer;
BEGIN
    SELECT * INTO r FROM @table@ WHERE key = p_key FOR UPDATE;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    r := @pruned@(r, now_us);
    i := array_position(r.tickets, p_ticket);
    IF i IS NOT NULL THEN
        r := @without_ticket@(r, i);
        PERFORM @put@(r);
        PERFORM @tell@(r, 'r', now_us);
    END IF;
    RETURN ARRAY[1, now_us];
END $$;

-- Forgets keys that have been idle for so long, among so many behind one key. Answers the last of these; NULL at the end.
-- What is forgotten has a fence below the clock, so that the next one is above it.
CREATE OR REPLACE FUNCTION @sweep@(p_after text, p_idle bigint, p_rows bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    page text[];
BEGIN
    -- One process is enough.
    IF NOT pg_try_advisory_xact_lock(@lock@) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(key ORDER BY key) INTO page
        FROM (SELECT key FROM @table@ WHERE key > p_after ORDER BY key LIMIT p_rows) AS rows_of_page;
    DELETE FROM @table@ WHERE key IN (
        SELECT key FROM @table@
            WHERE key = ANY (page) AND fence < now_us - p_idle AND watched < now_us AND (
                tokens IS NULL OR now_us - p_idle >= ALL (ends)) AND (tickets IS NULL OR now_us >= ALL (ticket_ends))
            FOR UPDATE SKIP LOCKED);
    RETURN CASE WHEN cardinality(page) >= p_rows THEN page[cardinality(page)] END;
END $$;

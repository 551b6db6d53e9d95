-- The row without what is over.
CREATE OR REPLACE FUNCTION @pruned@(r @table@, now_us bigint) RETURNS @table@ LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF now_us >= ANY (r.ends) THEN
        SELECT array_agg(h.token ORDER BY h.at), array_agg(h.fence ORDER BY h.at),
            array_agg(h.ends ORDER BY h.at), array_agg(h.permits ORDER BY h.at)
            INTO r.tokens, r.fences, r.ends, r.permits
            FROM unnest(r.tokens, r.fences, r.ends, r.permits)
                WITH ORDINALITY AS h (token, fence, ends, permits, at)
            WHERE h.ends > now_us;
    END IF;
    IF now_us >= ANY (r.ticket_ends) THEN
        SELECT array_agg(t.ticket ORDER BY t.at), array_agg(t.mode ORDER BY t.at),
            array_agg(t.permits ORDER BY t.at), array_agg(t.ends ORDER BY t.at)
            INTO r.tickets, r.ticket_modes, r.ticket_permits, r.ticket_ends
            FROM unnest(r.tickets, r.ticket_modes, r.ticket_permits, r.ticket_ends)
                WITH ORDINALITY AS t (ticket, mode, permits, ends, at)
            WHERE t.ends > now_us;
    END IF;
    RETURN r;
END $$;

-- The row without the holder in this place.
CREATE OR REPLACE FUNCTION @without_holder@(r @table@, i integer) RETURNS @table@ LANGUAGE plpgsql STABLE AS $$
BEGIN
    r.tokens := nullif(r.tokens[:i - 1] || r.tokens[i + 1:], '{}');
    r.fences := nullif(r.fences[:i - 1] || r.fences[i + 1:], '{}');
    r.ends := nullif(r.ends[:i - 1] || r.ends[i + 1:], '{}');
    r.permits := nullif(r.permits[:i - 1] || r.permits[i + 1:], '{}');
    RETURN r;
END $$;

-- The row without the ticket in this place.
CREATE OR REPLACE FUNCTION @without_ticket@(r @table@, i integer) RETURNS @table@ LANGUAGE plpgsql STABLE AS $$
BEGIN
    r.tickets := nullif(r.tickets[:i - 1] || r.tickets[i + 1:], '{}');
    r.ticket_modes := nullif(r.ticket_modes[:i - 1] || r.ticket_modes[i + 1:], '{}');
    r.ticket_permits := nullif(r.ticket_permits[:i - 1] || r.ticket_permits[i + 1:], '{}');
    r.ticket_ends := nullif(r.ticket_ends[:i - 1] || r.ticket_ends[i + 1:], '{}');
    RETURN r;
END $$;

-- How many of those who wait could have the key now, from the first on.
CREATE OR REPLACE FUNCTION @turns@(r @table@) RETURNS integer LANGUAGE plpgsql STABLE AS $$
DECLARE
    held boolean := r.tokens IS NOT NULL;
    used bigint := 0;
    wanted bigint;
    n integer := 0;
BEGIN
    IF r.tickets IS NULL THEN
        RETURN 0;
    END IF;
    IF held THEN
        SELECT sum(p) INTO used FROM unnest(r.permits) AS p;
    END IF;
    FOR i IN 1 .. cardinality(r.tickets) LOOP
        wanted := r.ticket_modes[i];
        EXIT WHEN held AND (wanted < 0 OR r.mode < 0 OR wanted <> r.mode);
        EXIT WHEN wanted > 0 AND used + r.ticket_permits[i] > wanted;
        held := true;
        r.mode := wanted;
        used := used + r.ticket_permits[i];
        n := i;
    END LOOP;
    RETURN n;
END $$;

-- Calls those whose turn it is, and tells those who listen what happened.
CREATE OR REPLACE FUNCTION @tell@(r @table@, what text, now_us bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. @turns@(r) LOOP
        PERFORM pg_notify('@channel@_' || left(r.tickets[i]::text, 18), r.key);
    END LOOP;
    IF r.watched > now_us OR what = 'f' THEN
        PERFORM pg_notify('@channel@', what || r.key);
    END IF;
END $$;

-- Writes the row back.
CREATE OR REPLACE FUNCTION @put@(r @table@) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE @table@ SET fence = r.fence, mode = r.mode, tokens = r.tokens, fences = r.fences, ends = r.ends,
        permits = r.permits, tickets = r.tickets, ticket_modes = r.ticket_modes, ticket_permits = r.ticket_permits,
        ticket_ends = r.ticket_ends, watched = r.watched
        WHERE key = r.key;
END $$;

-- The server's clock; and no statement waits for a row for longer than its caller does.
CREATE OR REPLACE FUNCTION @begin@(not_after bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
    PERFORM set_config('lock_timeout', least(greatest((not_after - now_us) / 1000, 1), 60000)::text, true);
    RETURN now_us;
END $$;

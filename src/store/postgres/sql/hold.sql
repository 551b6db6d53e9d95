-- Ends what a token holds. {1, now}: it held the key. {0, now}: it did not. {3, now}: too late, and nothing was done; the
-- token may hold the key anew.
CREATE OR REPLACE FUNCTION @release@(p_not_after bigint, p_key text, p_token uuid) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
    i integer;
BEGIN
    UPDATE @table@ SET tokens = NULL, fences = NULL, ends = NULL, permits = NULL
        WHERE key = p_key AND tokens = ARRAY[p_token] AND ends[1] > now_us AND tickets IS NULL AND watched = 0
            AND (extract(epoch FROM clock_timestamp()) * 1000000)::bigint <= p_not_after;
    IF FOUND THEN
        RETURN ARRAY[1, now_us];
    END IF;
    SELECT * INTO r FROM @table@ WHERE key = p_key FOR UPDATE;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    IF now_us > p_not_after THEN
        RETURN ARRAY[3, now_us];
    END IF;
    r := @pruned@(r, now_us);
    i := array_position(r.tokens, p_token);
    IF i IS NULL THEN
        RETURN ARRAY[0, now_us];
    END IF;
    r := @without_holder@(r, i);
    IF r.watched <= now_us THEN
        r.watched := 0;
    END IF;
    PERFORM @put@(r);
    PERFORM @tell@(r, 'r', now_us);
    RETURN ARRAY[1, now_us];
END $$;

-- The same for what a statement may have left that was not answered: waits for one that is about to be committed.
CREATE OR REPLACE FUNCTION @take_back@(p_not_after bigint, p_key text, p_token uuid) RETURNS bigint[]
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM @begin@(p_not_after);
    INSERT INTO @table@ (key, fence, mode, watched) VALUES (p_key, 0, 0, 0) ON CONFLICT DO NOTHING;
    RETURN @release@(p_not_after, p_key, p_token);
END $$;

-- Moves the end of what a token holds to so long from now, unless it lies later. {1, now, left}, or {0, now}: lost.
CREATE OR REPLACE FUNCTION @extend@(p_not_after bigint, p_key text, p_token uuid, p_ttl bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
    i integer;
BEGIN
    SELECT * INTO r FROM @table@ WHERE key = p_key FOR UPDATE;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    i := array_position(r.tokens, p_token);
    IF i IS NULL OR r.ends[i] <= now_us THEN
        RETURN ARRAY[0, now_us];
    END IF;
    IF r.ends[i] < now_us + p_ttl THEN
        r.ends[i] := now_us + p_ttl;
        UPDATE @table@ SET ends = r.ends WHERE key = p_key;
    END IF;
    RETURN ARRAY[1, now_us, r.ends[i] - now_us];
END $$;

-- Makes what a token holds by itself a shared hold. {1, now, left}; {0, now}: lost; {2, now}: it holds permits.
CREATE OR REPLACE FUNCTION @downgrade@(p_not_after bigint, p_key text, p_token uuid) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
    i integer;
BEGIN
    SELECT * INTO r FROM @table@ WHERE key = p_key FOR UPDATE;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    r := @pruned@(r, now_us);
    i := array_position(r.tokens, p_token);
    IF i IS NULL THEN
        RETURN ARRAY[0, now_us];
    ELSIF r.mode > 0 THEN
        RETURN ARRAY[2, now_us];
    ELSIF r.mode < 0 THEN
        r.mode := 0;
        PERFORM @put@(r);
        PERFORM @tell@(r, 'r', now_us);
    END IF;
    RETURN ARRAY[1, now_us, r.ends[i] - now_us];
END $$;

-- Ends what a token holds, and tries to take the key for another: what both answer, one behind the other.
CREATE OR REPLACE FUNCTION @exchange@(p_not_after bigint, p_key text, p_held uuid, p_token uuid, p_ttl bigint,
    p_mode bigint, p_permits bigint, p_ticket uuid) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    released bigint[] := @release@(p_not_after, p_key, p_held);
BEGIN
    RETURN released || @acquire@(p_not_after, p_key, p_token, p_ttl, p_mode, p_permits, p_ticket);
END $$;

-- Ends whatever holds the key, and the queue; or the one hold with a fence. {1, now}: it was held. {0, now}: it was not.
CREATE OR REPLACE FUNCTION @force@(p_not_after bigint, p_key text, p_fence bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
    i integer;
BEGIN
    SELECT * INTO r FROM @table@ WHERE key = p_key FOR UPDATE;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    r := @pruned@(r, now_us);
    i := array_position(r.fences, p_fence);
    IF now_us > p_not_after THEN
        RETURN ARRAY[3, now_us];
    ELSIF r.tokens IS NULL OR p_fence IS NOT NULL AND i IS NULL THEN
        RETURN ARRAY[0, now_us];
    ELSIF cardinality(r.tokens) > 1 AND p_fence IS NOT NULL THEN
        r := @without_holder@(r, i);
    ELSE
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
            INTO r.tokens, r.fences, r.ends, r.permits, r.tickets, r.ticket_modes, r.ticket_permits, r.ticket_ends;
    END IF;
    r.fence := greatest(r.fence + 1, now_us);
    PERFORM @put@(r);
    PERFORM @tell@(r, 'f', now_us);
    RETURN ARRAY[1, now_us];
END $$;

-- Tells every process that whatever holds the key will be ended so long from now. {1, now, fence}, or {0, now}: free.
CREATE OR REPLACE FUNCTION @notice@(p_not_after bigint, p_key text, p_within bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    r @table@;
BEGIN
    SELECT * INTO r FROM @table@ WHERE key = p_key;
    r := @pruned@(r, now_us);
    IF r.tokens IS NULL THEN
        RETURN ARRAY[0, now_us];
    END IF;
    PERFORM pg_notify('@channel@', format('n%s %s %s', CASE WHEN cardinality(r.tokens) = 1 THEN r.fences[1] ELSE 0 END,
        p_within, p_key));
    RETURN ARRAY[1, now_us, CASE WHEN cardinality(r.tokens) = 1 THEN r.fences[1] ELSE 0 END];
END $$;

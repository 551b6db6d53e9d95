-- One try to take a key.
-- {1, now, fence, left, 1 if it was held already}: granted. {2, now, why, retry in}: denied; why 0: held, 2: others wait
-- ahead, 3: held in another mode, 4: held by too many. {3, now}: too late, and nothing was done.
CREATE OR REPLACE FUNCTION @acquire@(p_not_after bigint, p_key text, p_token uuid, p_ttl bigint, p_mode bigint,
    p_permits bigint, p_ticket uuid) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    now_us bigint := @begin@(p_not_after);
    granted bigint;
    r @table@;
    i integer;
    ahead integer;
    why bigint := -1;
    retry bigint;
BEGIN
    -- A key that nobody holds or waits for. The clock is read again when the row is locked: that may take its time.
    IF p_mode = -1 AND now_us <= p_not_after THEN
        UPDATE @table@ AS l SET fence = greatest(l.fence + 1, now_us), mode = -1, tokens = ARRAY[p_token],
            fences = ARRAY[greatest(l.fence + 1, now_us)], ends = ARRAY[now_us + p_ttl], permits = ARRAY[1]
            WHERE l.key = p_key AND l.tokens IS NULL AND l.tickets IS NULL
                AND (extract(epoch FROM clock_timestamp()) * 1000000)::bigint <= p_not_after
            RETURNING l.fence INTO granted;
        IF NOT FOUND THEN
            INSERT INTO @table@ AS l (key, fence, mode, tokens, fences, ends, permits, watched)
                SELECT p_key, now_us, -1, ARRAY[p_token], ARRAY[now_us], ARRAY[now_us + p_ttl], ARRAY[1], 0
                WHERE (extract(epoch FROM clock_timestamp()) * 1000000)::bigint <= p_not_after
                ON CONFLICT DO NOTHING
                RETURNING l.fence INTO granted;
        END IF;
        IF FOUND THEN
            RETURN ARRAY[1, now_us, granted, p_ttl, 0];
        END IF;
    END IF;
    LOOP
        SELECT * INTO r FROM @table@ WHERE key = p_key FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO @table@ (key, fence, mode, watched) VALUES (p_key, 0, 0, 0) ON CONFLICT DO NOTHING;
    END LOOP;
    now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    IF now_us > p_not_after THEN
        RETURN ARRAY[3, now_us];
    END IF;
    r := @pruned@(r, now_us);
    i := array_position(r.tokens, p_token);
    IF i IS NOT NULL THEN
        RETURN ARRAY[1, now_us, r.fences[i], r.ends[i] - now_us, 1];
    END IF;
    IF r.tokens IS NOT NULL THEN
        IF p_mode < 0 OR r.mode < 0 THEN
            why := 0;
        ELSIF p_mode <> r.mode THEN
            why := 3;
        ELSIF p_mode > 0 AND p_permits + (SELECT sum(p) FROM unnest(r.permits) AS p) > p_mode THEN
            why := 0;
        ELSIF cardinality(r.tokens) >= 4096 THEN
            why := 4;
        END IF;
        SELECT min(e) - now_us INTO retry FROM unnest(r.ends) AS e;
    END IF;
    i := array_position(r.tickets, p_ticket);
    ahead := coalesce(i - 1, cardinality(r.tickets), 0);
    IF why = -1 AND ahead > 0 AND (p_mode <> 0 OR 0 <> ANY (r.ticket_modes[1:ahead])) THEN
        why := 2;
        retry := r.ticket_ends[1] - now_us;
    END IF;
    IF why = -1 THEN
        IF i IS NOT NULL THEN
            r := @without_ticket@(r, i);
        END IF;
        r.fence := greatest(r.fence + 1, now_us);
        r.mode := p_mode;
        r.tokens := r.tokens || p_token;
        r.fences := r.fences || r.fence;
        r.ends := r.ends || now_us + p_ttl;
        r.permits := r.permits || p_permits;
        PERFORM @put@(r);
        RETURN ARRAY[1, now_us, r.fence, p_ttl, 0];
    END IF;
    IF p_ticket IS NOT NULL AND why <> 3 THEN
        -- Who wants it in another mode than before waits anew.
        IF i IS NOT NULL AND (r.ticket_modes[i] <> p_mode OR r.ticket_permits[i] < p_permits) THEN
            r := @without_ticket@(r, i);
            i := NULL;
        END IF;
        IF i IS NOT NULL THEN
            r.ticket_permits[i] := p_permits;
            r.ticket_ends[i] := now_us + @ticket@;
            PERFORM @put@(r);
        ELSIF coalesce(cardinality(r.tickets), 0) < 4096 THEN
            r.tickets := r.tickets || p_ticket;
            r.ticket_modes := r.ticket_modes || p_mode;
            r.ticket_permits := r.ticket_permits || p_permits;
            r.ticket_ends := r.ticket_ends || now_us + @ticket@;
            PERFORM @put@(r);
        END IF;
    END IF;
    RETURN ARRAY[2, now_us, why, coalesce(retry, -1)];
END $$;

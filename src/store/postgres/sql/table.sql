-- One row for each key. It stays when its key is released, since it remembers the highest fence.
-- Times and fences are microseconds since 1970 by the server's clock. NULL: none.
CREATE TABLE IF NOT EXISTS @table@ (
    key text COLLATE "C" PRIMARY KEY,
    -- The highest that was given out.
    fence bigint NOT NULL,
    -- How it is held, or was held last: -1 by one alone, 0 shared, above that by permits, of so many.
    mode bigint NOT NULL,
    -- Who holds it, in the order of their fences.
    tokens uuid[],
    fences bigint[],
    ends bigint[],
    permits bigint[],
    -- Which processes wait, in their order; until when each is waited for.
    tickets uuid[],
    ticket_modes bigint[],
    ticket_permits bigint[],
    ticket_ends bigint[],
    -- Until when somebody listens to what happens to it.
    watched bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

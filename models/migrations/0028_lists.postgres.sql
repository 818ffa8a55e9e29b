-- What lists of conversations filter and sort by: since when the contact waits for an answer, and the kinds of its channels.
-- A trigger keeps both, also for messages that servers of the version before store.

ALTER TABLE conversation ADD COLUMN waiting_since TIMESTAMPTZ;
-- Between spaces: ' SMS EMAIL '.
ALTER TABLE conversation ADD COLUMN channel_kinds VARCHAR(160) NOT NULL DEFAULT ' ';

-- Automatic answers leave the contact waiting; their author is no user, and named as in services/core/permissions.py.
CREATE FUNCTION message_answers(direction VARCHAR, author_id UUID, author_name VARCHAR) RETURNS BOOLEAN
LANGUAGE sql IMMUTABLE AS $$
    SELECT direction = 'OUTBOUND' AND NOT (author_id IS NULL AND coalesce(author_name, '') IN ('System', 'Paythread'))
$$;

CREATE FUNCTION conversation_follow_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE conversation SET
        waiting_since = CASE
            WHEN NEW.direction = 'INBOUND' THEN least(waiting_since, NEW.occurred_at)
            WHEN message_answers(NEW.direction, NEW.author_id, NEW.author_name) THEN NULL
            ELSE waiting_since END,
        channel_kinds = CASE
            WHEN strpos(channel_kinds, ' ' || NEW.kind || ' ') > 0 THEN channel_kinds ELSE channel_kinds || NEW.kind || ' ' END
    WHERE id = NEW.conversation_id AND (
        strpos(channel_kinds, ' ' || NEW.kind || ' ') = 0
        OR (NEW.direction = 'INBOUND' AND (waiting_since IS NULL OR waiting_since > NEW.occurred_at))
        OR (waiting_since IS NOT NULL AND message_answers(NEW.direction, NEW.author_id, NEW.author_name)));
    RETURN NULL;
END
$$;
CREATE TRIGGER message_followed AFTER INSERT ON message
    FOR EACH ROW EXECUTE FUNCTION conversation_follow_message();

-- Fills the rows from before, a few at a time: called by the next migration.
CREATE PROCEDURE conversation_follow_all() LANGUAGE plpgsql AS $$
DECLARE
    ids UUID[];
    last UUID := '00000000-0000-0000-0000-000000000000';
BEGIN
    LOOP
        ids := ARRAY(SELECT id FROM conversation WHERE id > last ORDER BY id LIMIT 200);
        EXIT WHEN cardinality(ids) = 0;
        PERFORM 1 FROM conversation WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
        UPDATE conversation c SET
            waiting_since = CASE WHEN c.closed_at IS NULL THEN
                (SELECT min(m.occurred_at) FROM message m WHERE m.conversation_id = c.id AND m.direction = 'INBOUND'
                 AND m.seq > coalesce((SELECT a.seq FROM message a WHERE a.conversation_id = c.id
                     AND message_answers(a.direction, a.author_id, a.author_name) ORDER BY a.seq DESC LIMIT 1), 0)) END,
            channel_kinds = coalesce(
                (SELECT ' ' || string_agg(DISTINCT m.kind, ' ') || ' ' FROM message m WHERE m.conversation_id = c.id), ' ')
        WHERE c.id = ANY (ids);
        COMMIT;
        last := ids[cardinality(ids)];
    END LOOP;
    UPDATE conversation c SET
        waiting_since = CASE WHEN c.closed_at IS NULL THEN least(c.waiting_since, m.waiting_since) END,
        channel_kinds = (SELECT ' ' || string_agg(DISTINCT kind, ' ') || ' '
            FROM unnest(string_to_array(trim(c.channel_kinds || m.channel_kinds), ' ')) kind WHERE kind <> '')
    FROM (SELECT merged_into_id AS id, min(waiting_since) AS waiting_since, string_agg(channel_kinds, '') AS channel_kinds
        FROM conversation WHERE merged_into_id IS NOT NULL GROUP BY merged_into_id) m
    WHERE c.id = m.id AND trim(c.channel_kinds || m.channel_kinds) <> '';
    COMMIT;
END
$$;

-- down
DROP PROCEDURE conversation_follow_all();
DROP TRIGGER message_followed ON message;
DROP FUNCTION conversation_follow_message();
DROP FUNCTION message_answers(VARCHAR, UUID, VARCHAR);
ALTER TABLE conversation DROP COLUMN channel_kinds;
ALTER TABLE conversation DROP COLUMN waiting_since;

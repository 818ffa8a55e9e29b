-- What lists of conversations filter and sort by: since when the contact waits for an answer, and the kinds of its channels.

ALTER TABLE conversation ADD COLUMN waiting_since TIMESTAMP;
-- Between spaces: ' SMS EMAIL '.
ALTER TABLE conversation ADD COLUMN channel_kinds VARCHAR(160) NOT NULL DEFAULT ' ';

-- Automatic answers leave the contact waiting; their author is no user, and named as in services/core/permissions.py.
CREATE TRIGGER message_followed AFTER INSERT ON message BEGIN
    UPDATE conversation SET
        waiting_since = CASE
            WHEN NEW.direction = 'INBOUND' THEN min(coalesce(waiting_since, NEW.occurred_at), NEW.occurred_at)
            WHEN NEW.author_id IS NULL AND coalesce(NEW.author_name, '') IN ('System', 'Paythread') THEN waiting_since
            ELSE NULL END,
        channel_kinds = CASE
            WHEN instr(channel_kinds, ' ' || NEW.kind || ' ') > 0 THEN channel_kinds ELSE channel_kinds || NEW.kind || ' ' END
    WHERE id = NEW.conversation_id AND (
        instr(channel_kinds, ' ' || NEW.kind || ' ') = 0
        OR (NEW.direction = 'INBOUND' AND (waiting_since IS NULL OR waiting_since > NEW.occurred_at))
        OR (NEW.direction = 'OUTBOUND' AND waiting_since IS NOT NULL));
END;

-- down
DROP TRIGGER message_followed;
ALTER TABLE conversation DROP COLUMN channel_kinds;
ALTER TABLE conversation DROP COLUMN waiting_since;

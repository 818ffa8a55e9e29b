-- Letters: what they quote, who else received them, and the Message-ID that a relay has put in place of ours.

ALTER TABLE message ADD COLUMN quoted_text TEXT;
ALTER TABLE message ADD COLUMN cc JSONB;
ALTER TABLE message ADD COLUMN relay_id VARCHAR(120);
CREATE INDEX message_relay_id ON message (channel_connection_id, relay_id) WHERE relay_id IS NOT NULL;

-- down
DROP INDEX message_relay_id;
ALTER TABLE message DROP COLUMN relay_id;
ALTER TABLE message DROP COLUMN cc;
ALTER TABLE message DROP COLUMN quoted_text;

-- What is told of a message after it: which one it answers, the contact's reaction, that it was changed or taken back.

ALTER TABLE message ADD COLUMN reply_to_id CHAR(36);
ALTER TABLE message ADD COLUMN reaction VARCHAR(40);
ALTER TABLE message ADD COLUMN edited_at TIMESTAMP;
ALTER TABLE message ADD COLUMN removed_at TIMESTAMP;

-- down
ALTER TABLE message DROP COLUMN removed_at;
ALTER TABLE message DROP COLUMN edited_at;
ALTER TABLE message DROP COLUMN reaction;
ALTER TABLE message DROP COLUMN reply_to_id;

-- Addresses of a letter's Cc that it did not reach.

ALTER TABLE message ADD COLUMN undelivered_cc JSONB;

-- down
ALTER TABLE message DROP COLUMN undelivered_cc;

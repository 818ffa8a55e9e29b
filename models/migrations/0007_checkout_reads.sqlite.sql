-- When a page last had a checkout read at its processor: pages ask at most once in a few seconds.

ALTER TABLE checkout_session ADD COLUMN read_at TIMESTAMP;

-- down
ALTER TABLE checkout_session DROP COLUMN read_at;

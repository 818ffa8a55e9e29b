-- Whose payments a user is notified of, by topic (no row: FOLLOWED), and the email digest of unread notifications.

CREATE TABLE notification_rule (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    user_id UUID NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    topic VARCHAR(12) NOT NULL,
    scope VARCHAR(12) NOT NULL,
    by_email BOOL NOT NULL,
    UNIQUE (user_id, topic)
);

CREATE TABLE notification_digest (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    user_id UUID NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    frequency VARCHAR(8) NOT NULL,
    quiet_from INT,
    quiet_until INT,
    sent_seq BIGINT NOT NULL DEFAULT 0,
    next_at TIMESTAMPTZ,
    UNIQUE (user_id)
);
CREATE INDEX notification_digest_next_at ON notification_digest (next_at);

-- down
DROP TABLE notification_digest;
DROP TABLE notification_rule;

-- Capturing an approved checkout, webhooks registered by us, what a dispute waits for, opt-outs by sender, attachments, web chat, templates, closed conversations.

ALTER TABLE checkout_session ADD COLUMN capturing_at TIMESTAMP;
ALTER TABLE checkout_session ADD COLUMN capture_n INT NOT NULL DEFAULT 0;
ALTER TABLE checkout_session ADD COLUMN closing_at TIMESTAMP;
DROP INDEX checkout_session_next_check;
CREATE INDEX checkout_session_next_check ON checkout_session (next_check_at) WHERE next_check_at IS NOT NULL;
-- Paid checkouts are read again: those of before are due now.
UPDATE checkout_session SET next_check_at = updated_at WHERE status = 'COMPLETED';

ALTER TABLE processor_connection ADD COLUMN checkouts_read_until TIMESTAMP;

ALTER TABLE money_fact ADD COLUMN response_due_at TIMESTAMP;
ALTER TABLE money_fact ADD COLUMN dispute_reason VARCHAR(80);
ALTER TABLE money_fact ADD COLUMN inquiry INT NOT NULL DEFAULT 0;

ALTER TABLE processor_connection ADD COLUMN webhook_registered INT NOT NULL DEFAULT 0;

ALTER TABLE channel_connection ADD COLUMN allowed_origins JSON NOT NULL DEFAULT '[]';
ALTER TABLE channel_connection ADD COLUMN next_send_at TIMESTAMP;

ALTER TABLE conversation ADD COLUMN closed_at TIMESTAMP;

ALTER TABLE message ADD COLUMN template_id VARCHAR(80);
ALTER TABLE message ADD COLUMN template_variables JSON;

CREATE TABLE opt_out (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    channel_connection_id CHAR(36) NOT NULL REFERENCES channel_connection (id) ON DELETE RESTRICT,
    kind VARCHAR(12) NOT NULL,
    address VARCHAR(254) NOT NULL,
    created_at TIMESTAMP NOT NULL,
    UNIQUE (channel_connection_id, address),
    CONSTRAINT opt_out_kind_valid CHECK (
        kind IN ('SMS', 'EMAIL', 'WHATSAPP', 'INSTAGRAM_DM', 'MESSENGER', 'WEB_CHAT', 'CUSTOM')
    )
);

CREATE INDEX opt_out_account_kind_address ON opt_out (account_id, kind, address);

CREATE TABLE attachment (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    message_id CHAR(36) NOT NULL REFERENCES message (id) ON DELETE RESTRICT,
    n INT NOT NULL,
    name VARCHAR(255) NOT NULL,
    content_type VARCHAR(120) NOT NULL,
    size_bytes BIGINT,
    source_url TEXT,
    status VARCHAR(12) NOT NULL,
    reason VARCHAR(60),
    content BLOB,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    UNIQUE (message_id, n),
    CONSTRAINT attachment_status_valid CHECK (status IN ('PENDING', 'STORED', 'REFUSED', 'FAILED'))
);

CREATE TABLE visitor (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    channel_connection_id CHAR(36) NOT NULL REFERENCES channel_connection (id) ON DELETE RESTRICT,
    contact_id CHAR(36) REFERENCES contact (id) ON DELETE RESTRICT,
    token_hash VARCHAR(64) NOT NULL UNIQUE,
    external_id VARCHAR(120),
    created_at TIMESTAMP NOT NULL,
    last_seen_at TIMESTAMP NOT NULL
);
CREATE INDEX visitor_channel_connection_external ON visitor (channel_connection_id, external_id);

-- down
DROP TABLE visitor;
DROP TABLE attachment;
DROP TABLE opt_out;
ALTER TABLE message DROP COLUMN template_variables;
ALTER TABLE message DROP COLUMN template_id;
ALTER TABLE conversation DROP COLUMN closed_at;
ALTER TABLE channel_connection DROP COLUMN next_send_at;
ALTER TABLE channel_connection DROP COLUMN allowed_origins;
ALTER TABLE processor_connection DROP COLUMN webhook_registered;
ALTER TABLE money_fact DROP COLUMN inquiry;
ALTER TABLE money_fact DROP COLUMN dispute_reason;
ALTER TABLE money_fact DROP COLUMN response_due_at;
ALTER TABLE processor_connection DROP COLUMN checkouts_read_until;
UPDATE checkout_session SET next_check_at = NULL WHERE status = 'COMPLETED';
DROP INDEX checkout_session_next_check;
CREATE INDEX checkout_session_next_check ON checkout_session (next_check_at) WHERE status IN ('OPENING', 'OPEN', 'PROCESSING');
ALTER TABLE checkout_session DROP COLUMN closing_at;
ALTER TABLE checkout_session DROP COLUMN capture_n;
ALTER TABLE checkout_session DROP COLUMN capturing_at;

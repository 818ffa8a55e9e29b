-- The first schema. Columns and keys follow models/tables.py (the drift test compares them); checks, partial indexes and
-- triggers are said here only.

CREATE TABLE account (
    id UUID NOT NULL PRIMARY KEY,
    name VARCHAR(120) NOT NULL,
    default_currency VARCHAR(3) NOT NULL,
    locale VARCHAR(20) NOT NULL,
    time_zone VARCHAR(64) NOT NULL,
    contact_email VARCHAR(254),
    contact_phone VARCHAR(20),
    brand_color VARCHAR(7),
    link_message_template TEXT NOT NULL,
    number_prefix VARCHAR(10) NOT NULL,
    request_count INT NOT NULL,
    event_seq BIGINT NOT NULL,
    event_epoch VARCHAR(12) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT account_default_currency_valid CHECK (length(default_currency) = 3),
    CONSTRAINT account_request_count_valid CHECK (request_count >= 0),
    CONSTRAINT account_event_seq_valid CHECK (event_seq >= 0)
);

CREATE TABLE user_account (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    email VARCHAR(254) NOT NULL UNIQUE,
    name VARCHAR(120) NOT NULL,
    role VARCHAR(10) NOT NULL,
    password_hash VARCHAR(200) NOT NULL,
    token_version INT NOT NULL,
    disabled_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT user_account_role_valid CHECK (role IN ('OWNER', 'ADMIN', 'AGENT', 'VIEWER'))
);
CREATE INDEX user_account_account ON user_account (account_id);

CREATE TABLE refresh_token (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    user_id UUID NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    family_id UUID NOT NULL,
    token_hash VARCHAR(64) NOT NULL UNIQUE,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX refresh_token_family ON refresh_token (family_id);
CREATE INDEX refresh_token_user ON refresh_token (user_id);

CREATE TABLE api_key (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    name VARCHAR(120) NOT NULL,
    role VARCHAR(10) NOT NULL,
    token_hash VARCHAR(64) NOT NULL UNIQUE,
    hint VARCHAR(12) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ,
    CONSTRAINT api_key_role_valid CHECK (role IN ('OWNER', 'ADMIN', 'AGENT', 'VIEWER'))
);
CREATE INDEX api_key_account ON api_key (account_id);

CREATE TABLE contact (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    name VARCHAR(120) NOT NULL,
    email VARCHAR(254),
    phone VARCHAR(20),
    tags JSONB NOT NULL,
    version INT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX contact_account_id ON contact (account_id, id);

CREATE TABLE contact_address (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    kind VARCHAR(12) NOT NULL,
    address VARCHAR(254) NOT NULL,
    opted_out_at TIMESTAMPTZ,
    last_inbound_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    UNIQUE (account_id, kind, address),
    UNIQUE (contact_id, kind),
    CONSTRAINT contact_address_kind_valid CHECK (
        kind IN ('SMS', 'EMAIL', 'WHATSAPP', 'INSTAGRAM_DM', 'MESSENGER', 'WEB_CHAT', 'CUSTOM')
    )
);

CREATE TABLE contact_summary (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    currency VARCHAR(3) NOT NULL,
    test_mode BOOL NOT NULL,
    requested_minor BIGINT NOT NULL,
    outstanding_minor BIGINT NOT NULL,
    paid_minor BIGINT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    net_minor BIGINT NOT NULL,
    open_count INT NOT NULL,
    paid_count INT NOT NULL,
    first_paid_at TIMESTAMPTZ,
    last_paid_at TIMESTAMPTZ,
    UNIQUE (contact_id, currency, test_mode),
    CONSTRAINT contact_summary_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT contact_summary_amounts_valid CHECK (
        requested_minor >= 0 AND outstanding_minor >= 0 AND paid_minor >= 0 AND refunded_minor >= 0
    ),
    CONSTRAINT contact_summary_counts_valid CHECK (open_count >= 0 AND paid_count >= 0)
);

CREATE TABLE conversation (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL UNIQUE REFERENCES contact (id) ON DELETE RESTRICT,
    assignee_id UUID,
    last_activity_at TIMESTAMPTZ NOT NULL,
    preview VARCHAR(160) NOT NULL,
    unread_count INT NOT NULL,
    draft TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT conversation_unread_count_valid CHECK (unread_count >= 0)
);
CREATE INDEX conversation_account_last_activity_at_id ON conversation (account_id, last_activity_at, id);

CREATE TABLE conversation_follower (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id UUID NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    user_id UUID NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    UNIQUE (conversation_id, user_id)
);

CREATE TABLE channel_connection (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    kind VARCHAR(12) NOT NULL,
    provider VARCHAR(40) NOT NULL,
    display_name VARCHAR(120) NOT NULL,
    sender VARCHAR(254) NOT NULL,
    credentials TEXT NOT NULL,
    connected BOOL NOT NULL,
    last_webhook_at TIMESTAMPTZ,
    last_error VARCHAR(300),
    version INT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT channel_connection_kind_valid CHECK (
        kind IN ('SMS', 'EMAIL', 'WHATSAPP', 'INSTAGRAM_DM', 'MESSENGER', 'WEB_CHAT', 'CUSTOM')
    )
);
CREATE INDEX channel_connection_account ON channel_connection (account_id);

CREATE TABLE processor_connection (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    processor VARCHAR(40) NOT NULL,
    display_name VARCHAR(120) NOT NULL,
    test_mode BOOL NOT NULL,
    credentials TEXT NOT NULL,
    key_hint VARCHAR(24),
    vendor_account VARCHAR(120),
    connected BOOL NOT NULL,
    is_default BOOL NOT NULL,
    last_webhook_at TIMESTAMPTZ,
    last_error VARCHAR(300),
    events_read_until TIMESTAMPTZ,
    version INT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX processor_connection_account ON processor_connection (account_id);
CREATE UNIQUE INDEX processor_connection_one_default ON processor_connection (account_id) WHERE is_default AND connected;

CREATE TABLE payment_request (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id UUID NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    number VARCHAR(20) NOT NULL,
    token_hash VARCHAR(64) NOT NULL UNIQUE,
    token VARCHAR(300) NOT NULL,
    product_name VARCHAR(255) NOT NULL,
    description TEXT,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    test_mode BOOL NOT NULL,
    processor_connection_id UUID NOT NULL REFERENCES processor_connection (id) ON DELETE RESTRICT,
    channel_connection_id UUID REFERENCES channel_connection (id) ON DELETE RESTRICT,
    created_by_id UUID,
    status VARCHAR(16) NOT NULL,
    version INT NOT NULL,
    amount_paid_minor BIGINT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    excess_minor BIGINT NOT NULL,
    late_minor BIGINT NOT NULL,
    refund_state VARCHAR(8) NOT NULL,
    dispute_state VARCHAR(16) NOT NULL,
    sent_at TIMESTAMPTZ,
    sent_via VARCHAR(12),
    link_copied_at TIMESTAMPTZ,
    due_at TIMESTAMPTZ,
    paid_at TIMESTAMPTZ,
    void_requested_at TIMESTAMPTZ,
    void_requested_by_id UUID,
    void_reason VARCHAR(500),
    voided_at TIMESTAMPTZ,
    discarded_at TIMESTAMPTZ,
    first_viewed_at TIMESTAMPTZ,
    last_viewed_at TIMESTAMPTZ,
    human_views INT NOT NULL,
    last_message_id UUID,
    delivery_state VARCHAR(12) NOT NULL,
    last_attempt_status VARCHAR(12),
    last_attempt_code VARCHAR(80),
    last_attempt_message VARCHAR(300),
    last_attempt_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (account_id, number),
    CONSTRAINT payment_request_amount_minor_valid CHECK (amount_minor > 0),
    CONSTRAINT payment_request_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT payment_request_status_valid CHECK (
        status IN ('DRAFT', 'SENT', 'PROCESSING', 'PARTIALLY_PAID', 'PAID', 'VOID')
    ),
    CONSTRAINT payment_request_totals_valid CHECK (
        amount_paid_minor >= 0 AND refunded_minor >= 0 AND excess_minor >= 0 AND late_minor >= 0
    ),
    CONSTRAINT payment_request_refund_state_valid CHECK (refund_state IN ('NONE', 'PARTIAL', 'FULL')),
    CONSTRAINT payment_request_dispute_state_valid CHECK (
        dispute_state IN ('NONE', 'NEEDS_RESPONSE', 'UNDER_REVIEW', 'WON', 'LOST')
    ),
    CONSTRAINT payment_request_sent_via_valid CHECK (sent_via IN ('MESSAGE', 'LINK_COPIED')),
    CONSTRAINT payment_request_delivery_state_valid CHECK (
        delivery_state IN ('NOT_SENT', 'QUEUED', 'SENDING', 'SENT', 'DELIVERED', 'READ', 'FAILED', 'UNKNOWN')
    ),
    CONSTRAINT payment_request_last_attempt_status_valid CHECK (
        last_attempt_status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'CANCELED')
    ),
    CONSTRAINT payment_request_human_views_valid CHECK (human_views >= 0)
);
CREATE INDEX payment_request_contact_id ON payment_request (contact_id, id);
CREATE INDEX payment_request_account_created_at ON payment_request (account_id, created_at);
CREATE INDEX payment_request_conversation ON payment_request (conversation_id);

CREATE TABLE message (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id UUID NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    direction VARCHAR(8) NOT NULL,
    kind VARCHAR(12) NOT NULL,
    channel_connection_id UUID NOT NULL REFERENCES channel_connection (id) ON DELETE RESTRICT,
    address VARCHAR(254) NOT NULL,
    subject VARCHAR(255),
    body TEXT NOT NULL,
    delivery_status VARCHAR(12) NOT NULL,
    error_code VARCHAR(40),
    error_message VARCHAR(300),
    attempt_id VARCHAR(40),
    external_id VARCHAR(120),
    retry_of_id UUID,
    author_id UUID,
    author_name VARCHAR(120),
    occurred_at TIMESTAMPTZ NOT NULL,
    sending_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (channel_connection_id, external_id),
    UNIQUE (conversation_id, seq),
    CONSTRAINT message_direction_valid CHECK (direction IN ('INBOUND', 'OUTBOUND')),
    CONSTRAINT message_kind_valid CHECK (
        kind IN ('SMS', 'EMAIL', 'WHATSAPP', 'INSTAGRAM_DM', 'MESSENGER', 'WEB_CHAT', 'CUSTOM')
    ),
    CONSTRAINT message_delivery_status_valid CHECK (
        delivery_status IN ('QUEUED', 'SENDING', 'SENT', 'DELIVERED', 'READ', 'FAILED', 'UNKNOWN')
    )
);

CREATE TABLE message_payment_request (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    message_id UUID NOT NULL REFERENCES message (id) ON DELETE RESTRICT,
    payment_request_id UUID NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    UNIQUE (message_id, payment_request_id)
);
CREATE INDEX message_payment_request_payment_request ON message_payment_request (payment_request_id);

CREATE TABLE checkout_session (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    payment_request_id UUID NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    processor_connection_id UUID NOT NULL REFERENCES processor_connection (id) ON DELETE RESTRICT,
    n INT NOT NULL,
    idempotency_key VARCHAR(80) NOT NULL UNIQUE,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    status VARCHAR(12) NOT NULL,
    external_id VARCHAR(200),
    url TEXT,
    expires_at TIMESTAMPTZ,
    returned_at TIMESTAMPTZ,
    next_check_at TIMESTAMPTZ,
    checks INT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (payment_request_id, n),
    UNIQUE (processor_connection_id, external_id),
    CONSTRAINT checkout_session_amount_minor_valid CHECK (amount_minor > 0),
    CONSTRAINT checkout_session_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT checkout_session_status_valid CHECK (
        status IN ('OPENING', 'OPEN', 'PROCESSING', 'COMPLETED', 'FAILED', 'EXPIRED', 'ABANDONED')
    )
);
CREATE INDEX checkout_session_next_check ON checkout_session (next_check_at) WHERE status IN ('OPENING', 'OPEN', 'PROCESSING');

CREATE TABLE money_fact (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    payment_request_id UUID NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    checkout_session_id UUID REFERENCES checkout_session (id) ON DELETE RESTRICT,
    processor_connection_id UUID REFERENCES processor_connection (id) ON DELETE RESTRICT,
    processor VARCHAR(40),
    kind VARCHAR(16) NOT NULL,
    external_id VARCHAR(200) NOT NULL,
    outcome VARCHAR(12) NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    counted BOOL NOT NULL,
    after_void BOOL NOT NULL,
    charge_external_id VARCHAR(200),
    fee_minor BIGINT,
    method_summary VARCHAR(80),
    failure_code VARCHAR(80),
    failure_message VARCHAR(300),
    test_mode BOOL NOT NULL,
    source VARCHAR(12) NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    UNIQUE (processor_connection_id, kind, external_id, outcome),
    CONSTRAINT money_fact_amount_minor_valid CHECK (amount_minor >= 0),
    CONSTRAINT money_fact_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT money_fact_kind_valid CHECK (kind IN ('CHARGE', 'REFUND', 'DISPUTE', 'DISPUTE_REVERSAL', 'ADJUSTMENT')),
    CONSTRAINT money_fact_outcome_valid CHECK (outcome IN ('PENDING', 'SUCCEEDED', 'FAILED', 'CANCELED')),
    CONSTRAINT money_fact_source_valid CHECK (source IN ('webhook', 'return', 'sweeper', 'void', 'refund', 'manual'))
);
CREATE INDEX money_fact_payment_request_id ON money_fact (payment_request_id, id);
CREATE INDEX money_fact_contact_id ON money_fact (contact_id, id);

CREATE TABLE activity_card (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id UUID NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    kind VARCHAR(24) NOT NULL,
    status VARCHAR(16) NOT NULL,
    payment_request_id UUID NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    money_fact_id UUID REFERENCES money_fact (id) ON DELETE RESTRICT,
    message_id UUID REFERENCES message (id) ON DELETE RESTRICT,
    text VARCHAR(500) NOT NULL,
    actor_id UUID,
    key VARCHAR(160) NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    UNIQUE (account_id, key),
    UNIQUE (conversation_id, seq),
    CONSTRAINT activity_card_kind_valid CHECK (
        kind IN ('PAYMENT_REQUEST', 'PAYMENT_RECEIVED', 'PARTIAL_PAYMENT', 'PAYMENT_PROCESSING', 'PAYMENT_FAILED',
        'PAYMENT_MISMATCH', 'REQUEST_VOIDED', 'REFUND_ISSUED', 'REFUND_FAILED', 'DISPUTE_OPENED', 'DISPUTE_CLOSED',
        'REMINDER_SENT', 'LATE_PAYMENT', 'EXCESS_PAYMENT', 'DELIVERY_FAILED', 'RECORDED_OUTSIDE', 'CARD_SAVED')
    ),
    CONSTRAINT activity_card_status_valid CHECK (
        status IN ('DRAFT', 'SENT', 'PROCESSING', 'PARTIALLY_PAID', 'PAID', 'VOID')
    )
);
CREATE INDEX activity_card_payment_request ON activity_card (payment_request_id);
CREATE UNIQUE INDEX activity_card_one_payment_request ON activity_card (payment_request_id) WHERE kind = 'PAYMENT_REQUEST';
CREATE UNIQUE INDEX activity_card_one_payment_received ON activity_card (payment_request_id) WHERE kind = 'PAYMENT_RECEIVED';
CREATE UNIQUE INDEX activity_card_one_request_voided ON activity_card (payment_request_id) WHERE kind = 'REQUEST_VOIDED';

CREATE TABLE processor_event (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    processor_connection_id UUID NOT NULL REFERENCES processor_connection (id) ON DELETE RESTRICT,
    external_id VARCHAR(200) NOT NULL,
    type VARCHAR(120) NOT NULL,
    body TEXT NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    handled_at TIMESTAMPTZ,
    result VARCHAR(20),
    attempts INT NOT NULL,
    error VARCHAR(300),
    UNIQUE (processor_connection_id, external_id)
);

CREATE TABLE notification (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    user_id UUID NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    kind VARCHAR(24) NOT NULL,
    title VARCHAR(200) NOT NULL,
    body VARCHAR(500) NOT NULL,
    payment_request_id UUID REFERENCES payment_request (id) ON DELETE RESTRICT,
    conversation_id UUID REFERENCES conversation (id) ON DELETE RESTRICT,
    key VARCHAR(160) NOT NULL,
    read_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    UNIQUE (account_id, key)
);
CREATE INDEX notification_user_seq ON notification (user_id, seq);

CREATE TABLE idempotency_key (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    mutation VARCHAR(60) NOT NULL,
    key VARCHAR(80) NOT NULL,
    input_hash VARCHAR(64) NOT NULL,
    state VARCHAR(8) NOT NULL,
    result JSONB,
    locked_until TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    UNIQUE (account_id, mutation, key),
    CONSTRAINT idempotency_key_state_valid CHECK (state IN ('running', 'done'))
);
CREATE INDEX idempotency_key_created_at ON idempotency_key (created_at);

CREATE TABLE job (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID REFERENCES account (id) ON DELETE RESTRICT,
    kind VARCHAR(60) NOT NULL,
    payload JSONB NOT NULL,
    key VARCHAR(200) UNIQUE,
    status VARCHAR(8) NOT NULL,
    attempts INT NOT NULL,
    max_attempts INT NOT NULL,
    due_at TIMESTAMPTZ NOT NULL,
    lease VARCHAR(40),
    last_error VARCHAR(300),
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT job_status_valid CHECK (status IN ('queued', 'running', 'done', 'dead'))
);
CREATE INDEX job_due ON job (due_at) WHERE status IN ('queued', 'running');

CREATE TABLE tick (
    name VARCHAR(60) NOT NULL PRIMARY KEY,
    every_ms INT NOT NULL,
    next_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT tick_every_ms_valid CHECK (every_ms > 0)
);

CREATE TABLE audit_entry (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    actor_id UUID,
    actor_kind VARCHAR(8) NOT NULL,
    action VARCHAR(60) NOT NULL,
    subject VARCHAR(60) NOT NULL,
    detail JSONB NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT audit_entry_actor_kind_valid CHECK (actor_kind IN ('user', 'api_key', 'system'))
);
CREATE INDEX audit_entry_account_id ON audit_entry (account_id, id);

CREATE TABLE sandbox_checkout (
    id UUID NOT NULL PRIMARY KEY,
    external_id VARCHAR(60) NOT NULL UNIQUE,
    connection_id UUID NOT NULL,
    idempotency_key VARCHAR(80) NOT NULL,
    status VARCHAR(12) NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    request_reference VARCHAR(60) NOT NULL,
    number VARCHAR(20) NOT NULL,
    product_name VARCHAR(255) NOT NULL,
    description TEXT,
    business_name VARCHAR(120) NOT NULL,
    success_url TEXT NOT NULL,
    cancel_url TEXT NOT NULL,
    webhook_url TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    payments JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (connection_id, idempotency_key),
    CONSTRAINT sandbox_checkout_amount_minor_valid CHECK (amount_minor > 0),
    CONSTRAINT sandbox_checkout_currency_valid CHECK (length(currency) = 3)
);

-- The account's log: written and read raw by models/event_log.py. Its references are copies: they outlive what they name.
CREATE TABLE event (
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    kind VARCHAR(60) NOT NULL,
    conversation_id UUID,
    contact_id UUID,
    payment_request_id UUID,
    message_id UUID,
    card_id UUID,
    payment_id UUID,
    notification_id UUID,
    user_id UUID,
    data JSONB NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (account_id, seq),
    CONSTRAINT event_seq_valid CHECK (seq > 0)
);
CREATE INDEX event_at ON event (at);

-- Events leave only by the retention job: inside its transaction, and nowhere else, a row here says up to when.
CREATE TABLE event_pruning (
    before TIMESTAMPTZ NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE FUNCTION refuse_early_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM event_pruning WHERE before > OLD.at) THEN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END
$$;

CREATE TRIGGER activity_card_refuses_update BEFORE UPDATE ON activity_card
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER activity_card_refuses_delete BEFORE DELETE ON activity_card
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER activity_card_refuses_truncate BEFORE TRUNCATE ON activity_card
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER money_fact_refuses_update BEFORE UPDATE ON money_fact
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER money_fact_refuses_delete BEFORE DELETE ON money_fact
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER money_fact_refuses_truncate BEFORE TRUNCATE ON money_fact
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_entry_refuses_update BEFORE UPDATE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_entry_refuses_delete BEFORE DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_entry_refuses_truncate BEFORE TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_refuses_update BEFORE UPDATE ON event
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_refuses_delete BEFORE DELETE ON event
    FOR EACH ROW EXECUTE FUNCTION refuse_early_delete();
CREATE TRIGGER event_refuses_truncate BEFORE TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- down
DROP TABLE event_pruning;
DROP TABLE event;
DROP TABLE sandbox_checkout;
DROP TABLE audit_entry;
DROP TABLE tick;
DROP TABLE job;
DROP TABLE idempotency_key;
DROP TABLE notification;
DROP TABLE processor_event;
DROP TABLE activity_card;
DROP TABLE money_fact;
DROP TABLE checkout_session;
DROP TABLE message_payment_request;
DROP TABLE message;
DROP TABLE payment_request;
DROP TABLE processor_connection;
DROP TABLE channel_connection;
DROP TABLE conversation_follower;
DROP TABLE conversation;
DROP TABLE contact_summary;
DROP TABLE contact_address;
DROP TABLE contact;
DROP TABLE api_key;
DROP TABLE refresh_token;
DROP TABLE user_account;
DROP TABLE account;
DROP FUNCTION refuse_early_delete();
DROP FUNCTION refuse_change();

-- Cards and notices of payments that a processor refuses to take, and of processors that end their connection.
-- The old rule is part of the table, which is therefore made anew, with its indexes and triggers.

CREATE TABLE activity_card_new (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id CHAR(36) NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    contact_id CHAR(36) NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    kind VARCHAR(24) NOT NULL,
    status VARCHAR(16) NOT NULL,
    payment_request_id CHAR(36) NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    money_fact_id CHAR(36) REFERENCES money_fact (id) ON DELETE RESTRICT,
    message_id CHAR(36) REFERENCES message (id) ON DELETE RESTRICT,
    text VARCHAR(500) NOT NULL,
    actor_id CHAR(36),
    key VARCHAR(160) NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    UNIQUE (account_id, key),
    UNIQUE (conversation_id, seq),
    CONSTRAINT activity_card_kind_valid CHECK (
        kind IN ('PAYMENT_REQUEST', 'PAYMENT_RECEIVED', 'PARTIAL_PAYMENT', 'PAYMENT_PROCESSING', 'PAYMENT_FAILED',
        'PAYMENT_MISMATCH', 'REQUEST_VOIDED', 'REFUND_ISSUED', 'REFUND_FAILED', 'DISPUTE_OPENED', 'DISPUTE_CLOSED',
        'REMINDER_SENT', 'LATE_PAYMENT', 'EXCESS_PAYMENT', 'DELIVERY_FAILED', 'RECORDED_OUTSIDE', 'CARD_SAVED',
        'CHECKOUT_REFUSED', 'PROCESSOR_DISCONNECTED')
    ),
    CONSTRAINT activity_card_status_valid CHECK (
        status IN ('DRAFT', 'SENT', 'PROCESSING', 'PARTIALLY_PAID', 'PAID', 'VOID')
    )
);
INSERT INTO activity_card_new (
    id, account_id, conversation_id, contact_id, seq, kind, status, payment_request_id, money_fact_id,
    message_id, text, actor_id, key, occurred_at
) SELECT
    id, account_id, conversation_id, contact_id, seq, kind, status, payment_request_id, money_fact_id,
    message_id, text, actor_id, key, occurred_at
FROM activity_card;
DROP TABLE activity_card;
ALTER TABLE activity_card_new RENAME TO activity_card;
CREATE INDEX activity_card_payment_request ON activity_card (payment_request_id);
CREATE UNIQUE INDEX activity_card_one_payment_request ON activity_card (payment_request_id) WHERE kind = 'PAYMENT_REQUEST';
CREATE UNIQUE INDEX activity_card_one_payment_received ON activity_card (payment_request_id) WHERE kind = 'PAYMENT_RECEIVED';
CREATE UNIQUE INDEX activity_card_one_request_voided ON activity_card (payment_request_id) WHERE kind = 'REQUEST_VOIDED';
CREATE TRIGGER activity_card_refuses_update BEFORE UPDATE ON activity_card
BEGIN SELECT RAISE(ABORT, 'activity_card is append-only'); END;
CREATE TRIGGER activity_card_refuses_delete BEFORE DELETE ON activity_card
BEGIN SELECT RAISE(ABORT, 'activity_card is append-only'); END;

-- down
-- Fails where such a card was logged: the older version can't show it, and a card is never deleted.
CREATE TABLE activity_card_new (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id CHAR(36) NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    contact_id CHAR(36) NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    kind VARCHAR(24) NOT NULL,
    status VARCHAR(16) NOT NULL,
    payment_request_id CHAR(36) NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    money_fact_id CHAR(36) REFERENCES money_fact (id) ON DELETE RESTRICT,
    message_id CHAR(36) REFERENCES message (id) ON DELETE RESTRICT,
    text VARCHAR(500) NOT NULL,
    actor_id CHAR(36),
    key VARCHAR(160) NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
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
INSERT INTO activity_card_new (
    id, account_id, conversation_id, contact_id, seq, kind, status, payment_request_id, money_fact_id,
    message_id, text, actor_id, key, occurred_at
) SELECT
    id, account_id, conversation_id, contact_id, seq, kind, status, payment_request_id, money_fact_id,
    message_id, text, actor_id, key, occurred_at
FROM activity_card;
DROP TABLE activity_card;
ALTER TABLE activity_card_new RENAME TO activity_card;
CREATE INDEX activity_card_payment_request ON activity_card (payment_request_id);
CREATE UNIQUE INDEX activity_card_one_payment_request ON activity_card (payment_request_id) WHERE kind = 'PAYMENT_REQUEST';
CREATE UNIQUE INDEX activity_card_one_payment_received ON activity_card (payment_request_id) WHERE kind = 'PAYMENT_RECEIVED';
CREATE UNIQUE INDEX activity_card_one_request_voided ON activity_card (payment_request_id) WHERE kind = 'REQUEST_VOIDED';
CREATE TRIGGER activity_card_refuses_update BEFORE UPDATE ON activity_card
BEGIN SELECT RAISE(ABORT, 'activity_card is append-only'); END;
CREATE TRIGGER activity_card_refuses_delete BEFORE DELETE ON activity_card
BEGIN SELECT RAISE(ABORT, 'activity_card is append-only'); END;

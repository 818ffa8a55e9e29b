-- Refunds that are made from here, and money that is recorded by hand. Enum values and bounds: see the drift test.

ALTER TABLE money_fact ADD COLUMN note VARCHAR(500);
ALTER TABLE money_fact ADD COLUMN recorded_by_id UUID;

-- NULLs are distinct in a unique key: money that no connection told needs one of its own.
CREATE UNIQUE INDEX money_fact_one_by_hand ON money_fact (account_id, kind, external_id, outcome) WHERE processor_connection_id IS NULL;

CREATE TABLE refund (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    payment_request_id UUID NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    money_fact_id UUID NOT NULL REFERENCES money_fact (id) ON DELETE RESTRICT,
    charge_external_id VARCHAR(200) NOT NULL,
    processor_connection_id UUID NOT NULL REFERENCES processor_connection (id) ON DELETE RESTRICT,
    idempotency_key VARCHAR(80) NOT NULL UNIQUE,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    reason VARCHAR(24) NOT NULL,
    status VARCHAR(12) NOT NULL,
    external_id VARCHAR(200),
    failure_reason VARCHAR(300),
    checks INT NOT NULL,
    requested_by_id UUID,
    channel_connection_id UUID REFERENCES channel_connection (id) ON DELETE RESTRICT,
    message_id UUID REFERENCES message (id) ON DELETE RESTRICT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (processor_connection_id, external_id),
    CONSTRAINT refund_amount_minor_valid CHECK (amount_minor > 0),
    CONSTRAINT refund_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT refund_reason_valid CHECK (
        reason IN ('DUPLICATE', 'FRAUDULENT', 'REQUESTED_BY_CONTACT', 'SERVICE_PROBLEM', 'OTHER')
    ),
    CONSTRAINT refund_status_valid CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'CANCELED', 'UNKNOWN'))
);
CREATE INDEX refund_payment_request ON refund (payment_request_id);

-- down
DROP TABLE refund;
DROP INDEX money_fact_one_by_hand;
ALTER TABLE money_fact DROP COLUMN recorded_by_id;
ALTER TABLE money_fact DROP COLUMN note;

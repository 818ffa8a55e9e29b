-- Sums that differ from what was asked for: tenders of one checkout add up, and the team decides about the rest.
-- The check of kinds is part of the table, which is therefore made anew, with its indexes and triggers.

CREATE TABLE money_fact_new (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    payment_request_id CHAR(36) NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    contact_id CHAR(36) NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    checkout_session_id CHAR(36) REFERENCES checkout_session (id) ON DELETE RESTRICT,
    processor_connection_id CHAR(36) REFERENCES processor_connection (id) ON DELETE RESTRICT,
    processor VARCHAR(40),
    kind VARCHAR(16) NOT NULL,
    external_id VARCHAR(200) NOT NULL,
    outcome VARCHAR(12) NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    counted INT NOT NULL,
    after_void INT NOT NULL,
    charge_external_id VARCHAR(200),
    fee_minor BIGINT,
    method_summary VARCHAR(80),
    failure_code VARCHAR(80),
    failure_message VARCHAR(300),
    test_mode INT NOT NULL,
    source VARCHAR(12) NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    note VARCHAR(500),
    recorded_by_id CHAR(36),
    response_due_at TIMESTAMP,
    dispute_reason VARCHAR(80),
    inquiry INT NOT NULL DEFAULT 0,
    reversal INT NOT NULL DEFAULT 0,
    confirmed INT NOT NULL DEFAULT 1,
    asked_minor BIGINT,
    CONSTRAINT money_fact_amount_minor_valid CHECK (amount_minor >= 0),
    CONSTRAINT money_fact_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT money_fact_kind_valid CHECK (
        kind IN ('CHARGE', 'REFUND', 'DISPUTE', 'DISPUTE_REVERSAL', 'ADJUSTMENT', 'ACCEPTANCE', 'WAIVER')
    ),
    CONSTRAINT money_fact_outcome_valid CHECK (outcome IN ('PENDING', 'SUCCEEDED', 'FAILED', 'CANCELED')),
    CONSTRAINT money_fact_source_valid CHECK (source IN ('webhook', 'return', 'sweeper', 'void', 'refund', 'manual'))
);
INSERT INTO money_fact_new (
    id, account_id, payment_request_id, contact_id, checkout_session_id, processor_connection_id, processor, kind,
    external_id, outcome, amount_minor, currency, counted, after_void, charge_external_id, fee_minor, method_summary,
    failure_code, failure_message, test_mode, source, occurred_at, recorded_at, note, recorded_by_id, response_due_at,
    dispute_reason, inquiry, reversal
) SELECT
    id, account_id, payment_request_id, contact_id, checkout_session_id, processor_connection_id, processor, kind,
    external_id, outcome, amount_minor, currency, counted, after_void, charge_external_id, fee_minor, method_summary,
    failure_code, failure_message, test_mode, source, occurred_at, recorded_at, note, recorded_by_id, response_due_at,
    dispute_reason, inquiry, reversal
FROM money_fact;
DROP TABLE money_fact;
ALTER TABLE money_fact_new RENAME TO money_fact;
CREATE INDEX money_fact_payment_request_id ON money_fact (payment_request_id, id);
CREATE INDEX money_fact_contact_id ON money_fact (contact_id, id);
CREATE UNIQUE INDEX money_fact_one_by_hand ON money_fact (account_id, kind, external_id, outcome) WHERE processor_connection_id IS NULL;
CREATE UNIQUE INDEX money_fact_once ON money_fact (processor_connection_id, kind, external_id, outcome) WHERE kind <> 'DISPUTE';
CREATE UNIQUE INDEX money_fact_dispute_once ON money_fact (processor_connection_id, external_id, outcome, occurred_at) WHERE kind = 'DISPUTE';
CREATE TRIGGER money_fact_refuses_update BEFORE UPDATE ON money_fact
BEGIN SELECT RAISE(ABORT, 'money_fact is append-only'); END;
CREATE TRIGGER money_fact_refuses_delete BEFORE DELETE ON money_fact
BEGIN SELECT RAISE(ABORT, 'money_fact is append-only'); END;
ALTER TABLE payment_request ADD COLUMN waived_minor BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payment_request ADD COLUMN unresolved INT NOT NULL DEFAULT 0;
-- What arrived before and does not count waits for a decision now, unless it was given back or lost.
UPDATE payment_request SET unresolved = 1 WHERE EXISTS (
    SELECT 1 FROM money_fact charge WHERE charge.payment_request_id = payment_request.id AND charge.kind = 'CHARGE'
    AND charge.outcome = 'SUCCEEDED' AND charge.counted = 0 AND charge.amount_minor > coalesce((
        SELECT sum(loss.amount_minor) FROM money_fact loss WHERE loss.kind IN ('REFUND', 'DISPUTE')
        AND loss.processor_connection_id = charge.processor_connection_id AND loss.charge_external_id = charge.external_id
        AND loss.outcome = 'SUCCEEDED' AND NOT EXISTS (
            SELECT 1 FROM money_fact later WHERE later.processor_connection_id = loss.processor_connection_id
            AND later.kind = loss.kind AND later.external_id = loss.external_id AND later.outcome <> 'SUCCEEDED'
            AND (loss.kind = 'DISPUTE' AND later.occurred_at > loss.occurred_at
                OR loss.kind = 'REFUND' AND later.outcome IN ('FAILED', 'CANCELED'))
        )
    ), 0)
);

-- down
-- Fails where the team has decided about a sum: the older version can't keep that, and a fact is never deleted.
ALTER TABLE payment_request DROP COLUMN unresolved;
ALTER TABLE payment_request DROP COLUMN waived_minor;
CREATE TABLE money_fact_new (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    payment_request_id CHAR(36) NOT NULL REFERENCES payment_request (id) ON DELETE RESTRICT,
    contact_id CHAR(36) NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    checkout_session_id CHAR(36) REFERENCES checkout_session (id) ON DELETE RESTRICT,
    processor_connection_id CHAR(36) REFERENCES processor_connection (id) ON DELETE RESTRICT,
    processor VARCHAR(40),
    kind VARCHAR(16) NOT NULL,
    external_id VARCHAR(200) NOT NULL,
    outcome VARCHAR(12) NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    counted INT NOT NULL,
    after_void INT NOT NULL,
    charge_external_id VARCHAR(200),
    fee_minor BIGINT,
    method_summary VARCHAR(80),
    failure_code VARCHAR(80),
    failure_message VARCHAR(300),
    test_mode INT NOT NULL,
    source VARCHAR(12) NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    note VARCHAR(500),
    recorded_by_id CHAR(36),
    response_due_at TIMESTAMP,
    dispute_reason VARCHAR(80),
    inquiry INT NOT NULL DEFAULT 0,
    reversal INT NOT NULL DEFAULT 0,
    CONSTRAINT money_fact_amount_minor_valid CHECK (amount_minor >= 0),
    CONSTRAINT money_fact_currency_valid CHECK (length(currency) = 3),
    CONSTRAINT money_fact_kind_valid CHECK (kind IN ('CHARGE', 'REFUND', 'DISPUTE', 'DISPUTE_REVERSAL', 'ADJUSTMENT')),
    CONSTRAINT money_fact_outcome_valid CHECK (outcome IN ('PENDING', 'SUCCEEDED', 'FAILED', 'CANCELED')),
    CONSTRAINT money_fact_source_valid CHECK (source IN ('webhook', 'return', 'sweeper', 'void', 'refund', 'manual'))
);
INSERT INTO money_fact_new (
    id, account_id, payment_request_id, contact_id, checkout_session_id, processor_connection_id, processor, kind,
    external_id, outcome, amount_minor, currency, counted, after_void, charge_external_id, fee_minor, method_summary,
    failure_code, failure_message, test_mode, source, occurred_at, recorded_at, note, recorded_by_id, response_due_at,
    dispute_reason, inquiry, reversal
) SELECT
    id, account_id, payment_request_id, contact_id, checkout_session_id, processor_connection_id, processor, kind,
    external_id, outcome, amount_minor, currency, counted, after_void, charge_external_id, fee_minor, method_summary,
    failure_code, failure_message, test_mode, source, occurred_at, recorded_at, note, recorded_by_id, response_due_at,
    dispute_reason, inquiry, reversal
FROM money_fact;
DROP TABLE money_fact;
ALTER TABLE money_fact_new RENAME TO money_fact;
CREATE INDEX money_fact_payment_request_id ON money_fact (payment_request_id, id);
CREATE INDEX money_fact_contact_id ON money_fact (contact_id, id);
CREATE UNIQUE INDEX money_fact_one_by_hand ON money_fact (account_id, kind, external_id, outcome) WHERE processor_connection_id IS NULL;
CREATE UNIQUE INDEX money_fact_once ON money_fact (processor_connection_id, kind, external_id, outcome) WHERE kind <> 'DISPUTE';
CREATE UNIQUE INDEX money_fact_dispute_once ON money_fact (processor_connection_id, external_id, outcome, occurred_at) WHERE kind = 'DISPUTE';
CREATE TRIGGER money_fact_refuses_update BEFORE UPDATE ON money_fact
BEGIN SELECT RAISE(ABORT, 'money_fact is append-only'); END;
CREATE TRIGGER money_fact_refuses_delete BEFORE DELETE ON money_fact
BEGIN SELECT RAISE(ABORT, 'money_fact is append-only'); END;

-- Sums that differ from what was asked for: tenders of one checkout add up, and the team decides about the rest.

ALTER TABLE money_fact ADD COLUMN confirmed BOOLEAN NOT NULL DEFAULT true;
ALTER TABLE money_fact ADD COLUMN asked_minor BIGINT;
ALTER TABLE money_fact DROP CONSTRAINT money_fact_kind_valid;
ALTER TABLE money_fact ADD CONSTRAINT money_fact_kind_valid CHECK (
    kind IN ('CHARGE', 'REFUND', 'DISPUTE', 'DISPUTE_REVERSAL', 'ADJUSTMENT', 'ACCEPTANCE', 'WAIVER')
);
ALTER TABLE payment_request ADD COLUMN waived_minor BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payment_request ADD COLUMN unresolved BOOLEAN NOT NULL DEFAULT false;
-- What arrived before and does not count waits for a decision now, unless it was given back or lost.
UPDATE payment_request SET unresolved = true WHERE EXISTS (
    SELECT 1 FROM money_fact charge WHERE charge.payment_request_id = payment_request.id AND charge.kind = 'CHARGE'
    AND charge.outcome = 'SUCCEEDED' AND NOT charge.counted AND charge.amount_minor > coalesce((
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
ALTER TABLE money_fact DROP CONSTRAINT money_fact_kind_valid;
ALTER TABLE money_fact ADD CONSTRAINT money_fact_kind_valid CHECK (
    kind IN ('CHARGE', 'REFUND', 'DISPUTE', 'DISPUTE_REVERSAL', 'ADJUSTMENT')
);
ALTER TABLE money_fact DROP COLUMN asked_minor;
ALTER TABLE money_fact DROP COLUMN confirmed;

-- Which due date's passing has been told, so that becoming overdue is logged once; and the index that finds what is next.

ALTER TABLE payment_request ADD COLUMN overdue_for TIMESTAMPTZ;
CREATE INDEX payment_request_due ON payment_request (due_at)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND (overdue_for IS NULL OR overdue_for <> due_at);

-- down
DROP INDEX payment_request_due;
ALTER TABLE payment_request DROP COLUMN overdue_for;

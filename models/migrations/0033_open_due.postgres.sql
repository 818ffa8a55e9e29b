-- The index of open requests by due date serves only a list in that order: its condition has a part that each row meets
-- and only that list's statement names. Planners took it for lists in the order of creation, too.
-- no-transaction

DROP INDEX CONCURRENTLY IF EXISTS payment_request_open_due;
CREATE INDEX CONCURRENTLY payment_request_open_due ON payment_request (account_id, due_at, id)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND amount_minor > 0;

-- down
DROP INDEX CONCURRENTLY IF EXISTS payment_request_open_due;
CREATE INDEX CONCURRENTLY payment_request_open_due ON payment_request (account_id, due_at, id)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID');

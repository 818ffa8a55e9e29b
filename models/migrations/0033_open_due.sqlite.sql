-- Indexes of due dates for lists in that order only: the planner took them for lists in the order of creation, too. So one is of
-- an expression, and the other's condition has a part that each row meets; only statements of that order have them.

DROP INDEX payment_request_by_due;
CREATE INDEX payment_request_by_due ON payment_request (account_id, coalesce(due_at, NULL), id);
DROP INDEX payment_request_open_due;
CREATE INDEX payment_request_open_due ON payment_request (account_id, coalesce(due_at, NULL), id)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND amount_minor > 0;

-- down
DROP INDEX payment_request_open_due;
CREATE INDEX payment_request_open_due ON payment_request (account_id, due_at, id)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID');
DROP INDEX payment_request_by_due;
CREATE INDEX payment_request_by_due ON payment_request (account_id, due_at, id);

-- Rows from before, and an index of each order: a list reads about as many rows as it shows.
-- A broken-off CONCURRENTLY leaves an invalid index, so each is dropped first.
-- no-transaction

CALL conversation_follow_all();
DROP INDEX CONCURRENTLY IF EXISTS conversation_created;
CREATE INDEX CONCURRENTLY conversation_created ON conversation (account_id, created_at, id);
DROP INDEX CONCURRENTLY IF EXISTS conversation_waiting;
CREATE INDEX CONCURRENTLY conversation_waiting ON conversation (account_id, waiting_since, id);
DROP INDEX CONCURRENTLY IF EXISTS conversation_assignee;
CREATE INDEX CONCURRENTLY conversation_assignee ON conversation (account_id, assignee_id, last_activity_at, id);
DROP INDEX CONCURRENTLY IF EXISTS conversation_unread;
CREATE INDEX CONCURRENTLY conversation_unread ON conversation (account_id, last_activity_at, id) WHERE unread_count > 0;
DROP INDEX CONCURRENTLY IF EXISTS contact_updated;
CREATE INDEX CONCURRENTLY contact_updated ON contact (account_id, updated_at, id);
DROP INDEX CONCURRENTLY IF EXISTS contact_by_name;
CREATE INDEX CONCURRENTLY contact_by_name ON contact (account_id, (left(split_part(search, chr(10), 1), 120) COLLATE "C"), id);
DROP INDEX CONCURRENTLY IF EXISTS payment_request_updated;
CREATE INDEX CONCURRENTLY payment_request_updated ON payment_request (account_id, updated_at, id);
DROP INDEX CONCURRENTLY IF EXISTS payment_request_by_due;
CREATE INDEX CONCURRENTLY payment_request_by_due ON payment_request (account_id, due_at, id);
DROP INDEX CONCURRENTLY IF EXISTS payment_request_open_due;
CREATE INDEX CONCURRENTLY payment_request_open_due ON payment_request (account_id, due_at, id)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID');
DROP INDEX CONCURRENTLY IF EXISTS payment_request_paid;
CREATE INDEX CONCURRENTLY payment_request_paid ON payment_request (account_id, paid_at, id);
DROP INDEX CONCURRENTLY IF EXISTS payment_request_by_amount_due;
CREATE INDEX CONCURRENTLY payment_request_by_amount_due
    ON payment_request (account_id, greatest(0, amount_minor - amount_paid_minor - waived_minor), id);

-- down
DROP INDEX CONCURRENTLY IF EXISTS payment_request_by_amount_due;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_paid;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_open_due;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_by_due;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_updated;
DROP INDEX CONCURRENTLY IF EXISTS contact_by_name;
DROP INDEX CONCURRENTLY IF EXISTS contact_updated;
DROP INDEX CONCURRENTLY IF EXISTS conversation_unread;
DROP INDEX CONCURRENTLY IF EXISTS conversation_assignee;
DROP INDEX CONCURRENTLY IF EXISTS conversation_waiting;
DROP INDEX CONCURRENTLY IF EXISTS conversation_created;

-- Lists of large accounts: each list and filter reads about as many rows as it shows.
-- A broken-off CONCURRENTLY leaves an invalid index, so each is dropped first.
-- no-transaction

DROP INDEX CONCURRENTLY IF EXISTS payment_request_account_newest;
CREATE INDEX CONCURRENTLY payment_request_account_newest ON payment_request (account_id, created_at, id, test_mode);
DROP INDEX CONCURRENTLY IF EXISTS payment_request_account_status;
CREATE INDEX CONCURRENTLY payment_request_account_status ON payment_request (account_id, status, created_at, id);
DROP INDEX CONCURRENTLY IF EXISTS payment_request_overdue;
CREATE INDEX CONCURRENTLY payment_request_overdue ON payment_request (account_id, created_at, id, due_at)
    WHERE due_at IS NOT NULL AND status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID');
DROP INDEX CONCURRENTLY IF EXISTS conversation_open;
CREATE INDEX CONCURRENTLY conversation_open ON conversation (account_id, last_activity_at, id) WHERE closed_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS conversation_closed;
CREATE INDEX CONCURRENTLY conversation_closed ON conversation (account_id, last_activity_at, id) WHERE closed_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS contact_address_contact;
CREATE INDEX CONCURRENTLY contact_address_contact ON contact_address (contact_id, kind);
DROP INDEX CONCURRENTLY IF EXISTS notification_unread;
CREATE INDEX CONCURRENTLY notification_unread ON notification (user_id, seq) WHERE read_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_account_created_at;

-- down
DROP INDEX CONCURRENTLY IF EXISTS payment_request_account_created_at;
CREATE INDEX CONCURRENTLY payment_request_account_created_at ON payment_request (account_id, created_at);
DROP INDEX CONCURRENTLY IF EXISTS notification_unread;
DROP INDEX CONCURRENTLY IF EXISTS contact_address_contact;
DROP INDEX CONCURRENTLY IF EXISTS conversation_closed;
DROP INDEX CONCURRENTLY IF EXISTS conversation_open;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_overdue;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_account_status;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_account_newest;

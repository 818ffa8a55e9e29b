-- Lists of large accounts: each list and filter reads about as many rows as it shows.

DROP INDEX payment_request_account_created_at;
CREATE INDEX payment_request_account_newest ON payment_request (account_id, created_at, id, test_mode);
CREATE INDEX payment_request_account_status ON payment_request (account_id, status, created_at, id);
CREATE INDEX payment_request_overdue ON payment_request (account_id, created_at, id, due_at)
    WHERE due_at IS NOT NULL AND status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID');
CREATE INDEX conversation_open ON conversation (account_id, last_activity_at, id) WHERE closed_at IS NULL;
CREATE INDEX conversation_closed ON conversation (account_id, last_activity_at, id) WHERE closed_at IS NOT NULL;
CREATE INDEX contact_address_contact ON contact_address (contact_id, kind);
CREATE INDEX notification_unread ON notification (user_id, seq) WHERE read_at IS NULL;

-- down
DROP INDEX notification_unread;
DROP INDEX contact_address_contact;
DROP INDEX conversation_closed;
DROP INDEX conversation_open;
DROP INDEX payment_request_overdue;
DROP INDEX payment_request_account_status;
DROP INDEX payment_request_account_newest;
CREATE INDEX payment_request_account_created_at ON payment_request (account_id, created_at);

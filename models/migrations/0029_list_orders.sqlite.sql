-- Rows from before, and an index of each order: a list reads about as many rows as it shows.

UPDATE conversation SET
    waiting_since = CASE WHEN closed_at IS NULL THEN
        (SELECT min(m.occurred_at) FROM message m WHERE m.conversation_id = conversation.id AND m.direction = 'INBOUND'
         AND m.seq > coalesce((SELECT a.seq FROM message a WHERE a.conversation_id = conversation.id AND a.direction = 'OUTBOUND'
             AND NOT (a.author_id IS NULL AND coalesce(a.author_name, '') IN ('System', 'Paythread'))
             ORDER BY a.seq DESC LIMIT 1), 0)) END,
    channel_kinds = coalesce(' ' || (SELECT group_concat(kind, ' ')
        FROM (SELECT DISTINCT m.kind FROM message m WHERE m.conversation_id = conversation.id)) || ' ', ' ');
-- Merged conversations: the kept one has what theirs have.
UPDATE conversation SET
    waiting_since = CASE WHEN closed_at IS NULL THEN
        (SELECT min(w) FROM (SELECT conversation.waiting_since AS w
         UNION ALL SELECT m.waiting_since FROM conversation m WHERE m.merged_into_id = conversation.id)) END,
    channel_kinds = coalesce(' ' || (SELECT group_concat(kind, ' ') FROM (SELECT DISTINCT m.kind FROM message m
        WHERE m.conversation_id IN (SELECT c.id FROM conversation c WHERE c.id = conversation.id OR c.merged_into_id = conversation.id)))
        || ' ', ' ')
WHERE id IN (SELECT merged_into_id FROM conversation);
CREATE INDEX conversation_created ON conversation (account_id, created_at, id);
CREATE INDEX conversation_waiting ON conversation (account_id, waiting_since, id);
CREATE INDEX conversation_assignee ON conversation (account_id, assignee_id, last_activity_at, id);
CREATE INDEX conversation_unread ON conversation (account_id, last_activity_at, id) WHERE unread_count > 0;
CREATE INDEX contact_updated ON contact (account_id, updated_at, id);
CREATE INDEX contact_by_name ON contact (account_id, substr(search, 1, min(120, instr(search || char(10), char(10)) - 1)), id);
CREATE INDEX payment_request_updated ON payment_request (account_id, updated_at, id);
CREATE INDEX payment_request_by_due ON payment_request (account_id, due_at, id);
CREATE INDEX payment_request_open_due ON payment_request (account_id, due_at, id)
    WHERE status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID');
CREATE INDEX payment_request_paid ON payment_request (account_id, paid_at, id);
CREATE INDEX payment_request_by_amount_due
    ON payment_request (account_id, max(0, amount_minor - amount_paid_minor - waived_minor), id);

-- down
DROP INDEX payment_request_by_amount_due;
DROP INDEX payment_request_paid;
DROP INDEX payment_request_open_due;
DROP INDEX payment_request_by_due;
DROP INDEX payment_request_updated;
DROP INDEX contact_by_name;
DROP INDEX contact_updated;
DROP INDEX conversation_unread;
DROP INDEX conversation_assignee;
DROP INDEX conversation_waiting;
DROP INDEX conversation_created;

-- The newest messages of an account, and those that the job has yet to fold.
-- no-transaction

DROP INDEX CONCURRENTLY IF EXISTS message_account_seq;
CREATE INDEX CONCURRENTLY message_account_seq ON message (account_id, seq);
DROP INDEX CONCURRENTLY IF EXISTS message_unfolded;
CREATE INDEX CONCURRENTLY message_unfolded ON message (id) WHERE search IS NULL;

-- down
DROP INDEX CONCURRENTLY IF EXISTS message_unfolded;
DROP INDEX CONCURRENTLY IF EXISTS message_account_seq;

-- Keys of the rows from before, without blocking writes.
-- no-transaction

INSERT INTO search_text (id, kind, account_id, content)
SELECT id, 'c', account_id, search FROM contact WHERE search IS NOT NULL ON CONFLICT (id) DO NOTHING;
INSERT INTO search_text (id, kind, account_id, content, amount_minor)
SELECT id, 'r', account_id, search, amount_minor FROM payment_request WHERE search IS NOT NULL ON CONFLICT (id) DO NOTHING;
DROP INDEX CONCURRENTLY IF EXISTS search_text_keys;
CREATE INDEX CONCURRENTLY search_text_keys ON search_text
    USING gin (search_keys(kind, account_id, content, amount_minor)) WITH (gin_pending_list_limit = 256);

-- down
DROP INDEX CONCURRENTLY IF EXISTS search_text_keys;

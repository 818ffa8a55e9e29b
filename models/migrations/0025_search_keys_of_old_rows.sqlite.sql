-- Keys of the rows from before. A trigger indexes each.
-- needs fts5

INSERT INTO search_text (id, kind, account_id, content)
SELECT id, 'c', account_id, search FROM contact WHERE search IS NOT NULL;
INSERT INTO search_text (id, kind, account_id, content, amount_minor)
SELECT id, 'r', account_id, search, amount_minor FROM payment_request WHERE search IS NOT NULL;

-- down
DELETE FROM search_text;

-- Search without reading the account: an index of every run of one, two and three characters of the searched text.
-- A word of the index is the kind (c, r), the end of the account's id, and the run's bytes; "x" and a number is an amount.
-- needs fts5

CREATE TABLE search_text (
    n INTEGER NOT NULL PRIMARY KEY,
    id CHAR(36) NOT NULL UNIQUE,
    kind CHAR(1) NOT NULL,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    content TEXT NOT NULL,
    amount_minor BIGINT
);
CREATE VIRTUAL TABLE search_word USING fts5 (words, content='', columnsize=0, detail=none, tokenize='ascii');
CREATE VIEW search_words AS
SELECT t.n, coalesce(
    (SELECT group_concat(
        t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 1)) || ' '
        || t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 2)) || ' '
        || t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 3)), ' ')
     FROM json_each('[0' || replace(hex(zeroblob(length(t.content) - 1)), '00', ',0') || ']') p), '')
    || coalesce(' ' || t.kind || substr(t.account_id, 25) || 'x' || t.amount_minor, '') AS words
FROM search_text t;

CREATE TRIGGER search_text_inserted AFTER INSERT ON search_text BEGIN
    INSERT INTO search_word (rowid, words) SELECT n, words FROM search_words WHERE n = NEW.n;
END;
CREATE TRIGGER search_text_updates BEFORE UPDATE ON search_text BEGIN
    INSERT INTO search_word (search_word, rowid, words) SELECT 'delete', n, words FROM search_words WHERE n = OLD.n;
END;
CREATE TRIGGER search_text_updated AFTER UPDATE ON search_text BEGIN
    INSERT INTO search_word (rowid, words) SELECT n, words FROM search_words WHERE n = NEW.n;
END;
CREATE TRIGGER search_text_deletes BEFORE DELETE ON search_text BEGIN
    INSERT INTO search_word (search_word, rowid, words) SELECT 'delete', n, words FROM search_words WHERE n = OLD.n;
END;
CREATE TRIGGER contact_search_inserted AFTER INSERT ON contact WHEN NEW.search IS NOT NULL BEGIN
    INSERT INTO search_text (id, kind, account_id, content) VALUES (NEW.id, 'c', NEW.account_id, NEW.search);
END;
CREATE TRIGGER contact_search_updated AFTER UPDATE OF search ON contact WHEN NEW.search IS NOT OLD.search BEGIN
    DELETE FROM search_text WHERE id = NEW.id AND NEW.search IS NULL;
    UPDATE search_text SET content = NEW.search WHERE id = NEW.id AND NEW.search IS NOT NULL;
    INSERT INTO search_text (id, kind, account_id, content)
    SELECT NEW.id, 'c', NEW.account_id, NEW.search WHERE OLD.search IS NULL;
END;
CREATE TRIGGER contact_search_deleted AFTER DELETE ON contact BEGIN
    DELETE FROM search_text WHERE id = OLD.id;
END;
CREATE TRIGGER payment_request_search_inserted AFTER INSERT ON payment_request WHEN NEW.search IS NOT NULL BEGIN
    INSERT INTO search_text (id, kind, account_id, content, amount_minor)
    VALUES (NEW.id, 'r', NEW.account_id, NEW.search, NEW.amount_minor);
END;
CREATE TRIGGER payment_request_search_updated AFTER UPDATE OF search, amount_minor ON payment_request
WHEN NEW.search IS NOT OLD.search OR NEW.amount_minor <> OLD.amount_minor BEGIN
    DELETE FROM search_text WHERE id = NEW.id AND NEW.search IS NULL;
    UPDATE search_text SET content = NEW.search, amount_minor = NEW.amount_minor WHERE id = NEW.id AND NEW.search IS NOT NULL;
    INSERT INTO search_text (id, kind, account_id, content, amount_minor)
    SELECT NEW.id, 'r', NEW.account_id, NEW.search, NEW.amount_minor WHERE OLD.search IS NULL AND NEW.search IS NOT NULL;
END;
CREATE TRIGGER payment_request_search_deleted AFTER DELETE ON payment_request BEGIN
    DELETE FROM search_text WHERE id = OLD.id;
END;

-- down
DROP TRIGGER IF EXISTS payment_request_search_deleted;
DROP TRIGGER IF EXISTS payment_request_search_updated;
DROP TRIGGER IF EXISTS payment_request_search_inserted;
DROP TRIGGER IF EXISTS contact_search_deleted;
DROP TRIGGER IF EXISTS contact_search_updated;
DROP TRIGGER IF EXISTS contact_search_inserted;
DROP VIEW IF EXISTS search_words;
DROP TABLE IF EXISTS search_word;
DROP TABLE IF EXISTS search_text;

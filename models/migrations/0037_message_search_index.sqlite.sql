-- Messages in the index of searched texts. Their words are runs of three characters only: their texts are long.
-- needs fts5

DROP VIEW search_words;
CREATE VIEW search_words AS
SELECT t.n, coalesce(
    (SELECT group_concat(
        CASE t.kind WHEN 'm' THEN '' ELSE
            t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 1)) || ' '
            || t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 2)) || ' ' END
        || t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 3)), ' ')
     FROM json_each('[0' || replace(hex(zeroblob(length(t.content) - 1)), '00', ',0') || ']') p), '')
    || coalesce(' ' || t.kind || substr(t.account_id, 25) || 'x' || t.amount_minor, '') AS words
FROM search_text t;
CREATE TRIGGER message_search_inserted AFTER INSERT ON message WHEN NEW.search <> '' BEGIN
    INSERT INTO search_text (id, kind, account_id, content) VALUES (NEW.id, 'm', NEW.account_id, NEW.search);
END;
CREATE TRIGGER message_search_updated AFTER UPDATE OF search ON message WHEN NEW.search IS NOT OLD.search BEGIN
    DELETE FROM search_text WHERE id = NEW.id AND coalesce(NEW.search, '') = '';
    UPDATE search_text SET content = NEW.search WHERE id = NEW.id AND NEW.search <> '';
    INSERT INTO search_text (id, kind, account_id, content)
    SELECT NEW.id, 'm', NEW.account_id, NEW.search WHERE NEW.search <> '' AND coalesce(OLD.search, '') = '';
END;
CREATE TRIGGER message_search_deleted AFTER DELETE ON message BEGIN
    DELETE FROM search_text WHERE id = OLD.id;
END;

-- down
DROP TRIGGER IF EXISTS message_search_deleted;
DROP TRIGGER IF EXISTS message_search_updated;
DROP TRIGGER IF EXISTS message_search_inserted;
DELETE FROM search_text WHERE kind = 'm';
DROP VIEW IF EXISTS search_words;
CREATE VIEW search_words AS
SELECT t.n, coalesce(
    (SELECT group_concat(
        t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 1)) || ' '
        || t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 2)) || ' '
        || t.kind || substr(t.account_id, 25) || hex(substr(t.content, p.key + 1, 3)), ' ')
     FROM json_each('[0' || replace(hex(zeroblob(length(t.content) - 1)), '00', ',0') || ']') p), '')
    || coalesce(' ' || t.kind || substr(t.account_id, 25) || 'x' || t.amount_minor, '') AS words
FROM search_text t;

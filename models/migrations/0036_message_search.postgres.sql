-- Search of messages: the folded beginning of the text and its runs of three characters, in the index of contacts and requests.
-- A job folds the texts from before (services/accounts/search_index.py); the triggers index each.

ALTER TABLE message ADD COLUMN search TEXT;

-- As before, and for messages ('m') only runs of three: their texts are long. Their bits are of no code point.
CREATE OR REPLACE FUNCTION search_keys(kind CHAR, account_id UUID, content TEXT, amount_minor BIGINT) RETURNS BIGINT[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
DECLARE
    own BIGINT := ('x' || right(account_id::text, 4) || right(account_id::text, 12))::bit(64)::bigint
        # CASE kind WHEN 'c' THEN 0 WHEN 'm' THEN 2031616 ELSE (-9223372036854775808) END;
    keys BIGINT[] := CASE WHEN amount_minor IS NULL THEN '{}'::bigint[]
        ELSE ARRAY[own # (amount_minor | 9223367638808264704)] END;
    run BIGINT := 0;
    letter TEXT;
BEGIN
    FOREACH letter IN ARRAY string_to_array(reverse(content), NULL) LOOP
        run := (ascii(letter)::bigint << 42) | (run >> 21);
        IF kind = 'm' THEN
            keys := keys || (own # run);
        ELSE
            keys := keys || ARRAY[own # run, own # (run & 9223372036852678656), own # (run & 9223367638808264704)];
        END IF;
    END LOOP;
    RETURN keys;
END
$$;

CREATE FUNCTION message_search_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(NEW.search, '') = '' THEN
        DELETE FROM search_text WHERE id = NEW.id;
    ELSE
        INSERT INTO search_text (id, kind, account_id, content) VALUES (NEW.id, 'm', NEW.account_id, NEW.search)
        ON CONFLICT (id) DO UPDATE SET content = excluded.content;
    END IF;
    RETURN NULL;
END
$$;
-- A server of the version before changes a text without its search: the job folds it again.
CREATE FUNCTION message_search_renew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.search := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER message_search_inserted AFTER INSERT ON message
    FOR EACH ROW WHEN (NEW.search <> '') EXECUTE FUNCTION message_search_keep();
CREATE TRIGGER message_search_renewed BEFORE UPDATE OF body, subject ON message
    FOR EACH ROW WHEN (NEW.search = OLD.search AND (NEW.body <> OLD.body OR NEW.subject IS DISTINCT FROM OLD.subject))
    EXECUTE FUNCTION message_search_renew();
CREATE TRIGGER message_search_updated AFTER UPDATE ON message
    FOR EACH ROW WHEN (NEW.search IS DISTINCT FROM OLD.search) EXECUTE FUNCTION message_search_keep();
CREATE TRIGGER message_search_deleted AFTER DELETE ON message
    FOR EACH ROW EXECUTE FUNCTION search_forget();

-- down
DROP TRIGGER message_search_deleted ON message;
DROP TRIGGER message_search_updated ON message;
DROP TRIGGER message_search_renewed ON message;
DROP TRIGGER message_search_inserted ON message;
DROP FUNCTION message_search_renew();
DROP FUNCTION message_search_keep();
DELETE FROM search_text WHERE kind = 'm';
CREATE OR REPLACE FUNCTION search_keys(kind CHAR, account_id UUID, content TEXT, amount_minor BIGINT) RETURNS BIGINT[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
DECLARE
    own BIGINT := ('x' || right(account_id::text, 4) || right(account_id::text, 12))::bit(64)::bigint
        # CASE kind WHEN 'c' THEN 0 ELSE (-9223372036854775808) END;
    keys BIGINT[] := CASE WHEN amount_minor IS NULL THEN '{}'::bigint[]
        ELSE ARRAY[own # (amount_minor | 9223367638808264704)] END;
    run BIGINT := 0;
    letter TEXT;
BEGIN
    FOREACH letter IN ARRAY string_to_array(reverse(content), NULL) LOOP
        run := (ascii(letter)::bigint << 42) | (run >> 21);
        keys := keys || ARRAY[own # run, own # (run & 9223372036852678656), own # (run & 9223367638808264704)];
    END LOOP;
    RETURN keys;
END
$$;
ALTER TABLE message DROP COLUMN search;

-- Search without reading the account: keys of every run of one, two and three characters of the searched text.
-- Triggers keep the table: contact and payment_request change more often than their searched text.

CREATE TABLE search_text (
    id UUID NOT NULL PRIMARY KEY,
    kind CHAR(1) NOT NULL,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    content TEXT NOT NULL,
    amount_minor BIGINT
);

-- A key holds three code points of 21 bits; an amount has bits that no run has. The account's and the kind's bits change all.
-- The same in models/search_index.py.
CREATE FUNCTION search_keys(kind CHAR, account_id UUID, content TEXT, amount_minor BIGINT) RETURNS BIGINT[]
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

CREATE FUNCTION search_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.search IS NULL THEN
        DELETE FROM search_text WHERE id = NEW.id;
    ELSE
        INSERT INTO search_text (id, kind, account_id, content, amount_minor)
        VALUES (NEW.id, TG_ARGV[0], NEW.account_id, NEW.search,
            CASE TG_ARGV[0] WHEN 'r' THEN (to_jsonb(NEW) ->> 'amount_minor')::bigint END)
        ON CONFLICT (id) DO UPDATE SET content = excluded.content, amount_minor = excluded.amount_minor;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION search_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM search_text WHERE id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER contact_search_inserted AFTER INSERT ON contact
    FOR EACH ROW EXECUTE FUNCTION search_keep('c');
CREATE TRIGGER contact_search_updated AFTER UPDATE OF search ON contact
    FOR EACH ROW WHEN (NEW.search IS DISTINCT FROM OLD.search) EXECUTE FUNCTION search_keep('c');
CREATE TRIGGER contact_search_deleted AFTER DELETE ON contact
    FOR EACH ROW EXECUTE FUNCTION search_forget();
CREATE TRIGGER payment_request_search_inserted AFTER INSERT ON payment_request
    FOR EACH ROW EXECUTE FUNCTION search_keep('r');
CREATE TRIGGER payment_request_search_updated AFTER UPDATE OF search, amount_minor ON payment_request
    FOR EACH ROW WHEN (NEW.search IS DISTINCT FROM OLD.search OR NEW.amount_minor <> OLD.amount_minor)
    EXECUTE FUNCTION search_keep('r');
CREATE TRIGGER payment_request_search_deleted AFTER DELETE ON payment_request
    FOR EACH ROW EXECUTE FUNCTION search_forget();

-- down
DROP TRIGGER payment_request_search_deleted ON payment_request;
DROP TRIGGER payment_request_search_updated ON payment_request;
DROP TRIGGER payment_request_search_inserted ON payment_request;
DROP TRIGGER contact_search_deleted ON contact;
DROP TRIGGER contact_search_updated ON contact;
DROP TRIGGER contact_search_inserted ON contact;
DROP FUNCTION search_forget();
DROP FUNCTION search_keep();
DROP FUNCTION search_keys(CHAR, UUID, TEXT, BIGINT);
DROP TABLE search_text;

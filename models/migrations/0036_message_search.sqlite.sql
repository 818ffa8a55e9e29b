-- Search of messages: the folded beginning of the text. A job folds the texts from before (services/accounts/search_index.py).

ALTER TABLE message ADD COLUMN search TEXT;
CREATE INDEX message_account_seq ON message (account_id, seq);
CREATE INDEX message_unfolded ON message (id) WHERE search IS NULL;
-- A text that changes without its search is folded again.
CREATE TRIGGER message_search_renewed AFTER UPDATE OF body, subject ON message
WHEN NEW.search = OLD.search AND (NEW.body <> OLD.body OR NEW.subject IS NOT OLD.subject) BEGIN
    UPDATE message SET search = NULL WHERE id = NEW.id;
END;

-- down
DROP TRIGGER message_search_renewed;
DROP INDEX message_unfolded;
DROP INDEX message_account_seq;
ALTER TABLE message DROP COLUMN search;

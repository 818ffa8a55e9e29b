-- Search without regard to case and accents: rows keep their searched text folded. NULL: the job search.fill still has to write it.

ALTER TABLE contact ADD COLUMN search TEXT;
ALTER TABLE payment_request ADD COLUMN search TEXT;
CREATE INDEX contact_search_missing ON contact (id) WHERE search IS NULL;
CREATE INDEX payment_request_search_missing ON payment_request (id) WHERE search IS NULL;

-- down
DROP INDEX payment_request_search_missing;
DROP INDEX contact_search_missing;
ALTER TABLE payment_request DROP COLUMN search;
ALTER TABLE contact DROP COLUMN search;

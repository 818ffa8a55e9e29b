-- Contacts that turned out to be one person. Their messages, cards and money keep the contact and conversation that they were stored
-- with: reading follows `merged_ids` of the one that is kept, ids of the others follow `merged_into_id`.

ALTER TABLE account ADD COLUMN merge_count INT NOT NULL DEFAULT 0;
ALTER TABLE contact ADD COLUMN merged_into_id UUID;
ALTER TABLE contact ADD COLUMN merged_at TIMESTAMPTZ;
ALTER TABLE contact ADD COLUMN merged_ids JSONB;
ALTER TABLE contact ADD COLUMN also_known_as TEXT;
ALTER TABLE conversation ADD COLUMN merged_into_id UUID;
ALTER TABLE conversation ADD COLUMN merged_ids JSONB;
CREATE INDEX contact_merged ON contact (merged_into_id) WHERE merged_into_id IS NOT NULL;
ALTER TABLE contact_address ADD COLUMN in_use BOOL NOT NULL DEFAULT TRUE;
ALTER TABLE contact_address DROP CONSTRAINT contact_address_contact_id_kind_key;
CREATE UNIQUE INDEX contact_address_in_use ON contact_address (contact_id, kind) WHERE in_use;

-- down
DROP INDEX contact_address_in_use;
DELETE FROM contact_address WHERE NOT in_use;
ALTER TABLE contact_address ADD CONSTRAINT contact_address_contact_id_kind_key UNIQUE (contact_id, kind);
ALTER TABLE contact_address DROP COLUMN in_use;
DROP INDEX contact_merged;
ALTER TABLE conversation DROP COLUMN merged_ids;
ALTER TABLE conversation DROP COLUMN merged_into_id;
ALTER TABLE contact DROP COLUMN also_known_as;
ALTER TABLE contact DROP COLUMN merged_ids;
ALTER TABLE contact DROP COLUMN merged_at;
ALTER TABLE contact DROP COLUMN merged_into_id;
ALTER TABLE account DROP COLUMN merge_count;

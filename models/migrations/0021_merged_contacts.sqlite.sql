-- Contacts that turned out to be one person. Their messages, cards and money keep the contact and conversation that they were stored
-- with: reading follows `merged_ids` of the one that is kept, ids of the others follow `merged_into_id`.

ALTER TABLE account ADD COLUMN merge_count INT NOT NULL DEFAULT 0;
ALTER TABLE contact ADD COLUMN merged_into_id CHAR(36);
ALTER TABLE contact ADD COLUMN merged_at TIMESTAMP;
ALTER TABLE contact ADD COLUMN merged_ids JSON;
ALTER TABLE contact ADD COLUMN also_known_as TEXT;
ALTER TABLE conversation ADD COLUMN merged_into_id CHAR(36);
ALTER TABLE conversation ADD COLUMN merged_ids JSON;
CREATE INDEX contact_merged ON contact (merged_into_id) WHERE merged_into_id IS NOT NULL;

-- The old key is part of the table, which is therefore made anew.
CREATE TABLE contact_address_new (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    contact_id CHAR(36) NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    kind VARCHAR(12) NOT NULL,
    address VARCHAR(254) NOT NULL,
    opted_out_at TIMESTAMP,
    last_inbound_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL,
    in_use INT NOT NULL DEFAULT 1,
    UNIQUE (account_id, kind, address),
    CONSTRAINT contact_address_kind_valid CHECK (
        kind IN ('SMS', 'EMAIL', 'WHATSAPP', 'INSTAGRAM_DM', 'MESSENGER', 'WEB_CHAT', 'CUSTOM')
    )
);
INSERT INTO contact_address_new (id, account_id, contact_id, kind, address, opted_out_at, last_inbound_at, created_at) SELECT id, account_id, contact_id, kind, address, opted_out_at, last_inbound_at, created_at FROM contact_address;
DROP TABLE contact_address;
ALTER TABLE contact_address_new RENAME TO contact_address;
CREATE UNIQUE INDEX contact_address_in_use ON contact_address (contact_id, kind) WHERE in_use;

-- down
CREATE TABLE contact_address_old (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    contact_id CHAR(36) NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    kind VARCHAR(12) NOT NULL,
    address VARCHAR(254) NOT NULL,
    opted_out_at TIMESTAMP,
    last_inbound_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL,
    UNIQUE (account_id, kind, address),
    UNIQUE (contact_id, kind),
    CONSTRAINT contact_address_kind_valid CHECK (
        kind IN ('SMS', 'EMAIL', 'WHATSAPP', 'INSTAGRAM_DM', 'MESSENGER', 'WEB_CHAT', 'CUSTOM')
    )
);
INSERT INTO contact_address_old (id, account_id, contact_id, kind, address, opted_out_at, last_inbound_at, created_at) SELECT id, account_id, contact_id, kind, address, opted_out_at, last_inbound_at, created_at FROM contact_address WHERE in_use;
DROP TABLE contact_address;
ALTER TABLE contact_address_old RENAME TO contact_address;
DROP INDEX contact_merged;
ALTER TABLE conversation DROP COLUMN merged_ids;
ALTER TABLE conversation DROP COLUMN merged_into_id;
ALTER TABLE contact DROP COLUMN also_known_as;
ALTER TABLE contact DROP COLUMN merged_ids;
ALTER TABLE contact DROP COLUMN merged_at;
ALTER TABLE contact DROP COLUMN merged_into_id;
ALTER TABLE account DROP COLUMN merge_count;

-- Who caused it, as in 0030. Null: an entry of an older version.

ALTER TABLE event ADD COLUMN actor VARCHAR(160);

-- down
ALTER TABLE event DROP COLUMN actor;

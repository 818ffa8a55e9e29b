-- What the vendor says of a block ends with the block; a STOP that the contact wrote stays until START.

ALTER TABLE opt_out ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0;

-- down
ALTER TABLE opt_out DROP COLUMN blocked;

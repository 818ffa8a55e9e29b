-- Jobs keep what is secret in a column of its own, which a change of keys seals anew.

ALTER TABLE job ADD COLUMN sealed TEXT;

-- down
ALTER TABLE job DROP COLUMN sealed;

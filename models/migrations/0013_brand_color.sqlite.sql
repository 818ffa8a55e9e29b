-- No code reads or writes this column.

ALTER TABLE account DROP COLUMN brand_color;

-- down
ALTER TABLE account ADD COLUMN brand_color VARCHAR(7);

-- One connection per account at the vendor and mode. Duplicates from before keep their requests and are marked, so that they work on.

ALTER TABLE processor_connection ADD COLUMN webhook_claimed_until TIMESTAMPTZ;
ALTER TABLE processor_connection ADD COLUMN is_duplicate BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE processor_connection SET is_duplicate = TRUE WHERE vendor_account IS NOT NULL AND id <> (
    SELECT kept.id FROM processor_connection kept
    WHERE kept.account_id = processor_connection.account_id AND kept.processor = processor_connection.processor
        AND kept.test_mode = processor_connection.test_mode AND kept.vendor_account = processor_connection.vendor_account
    ORDER BY kept.connected DESC, kept.is_default DESC, kept.id LIMIT 1
);
CREATE UNIQUE INDEX processor_connection_vendor_account
    ON processor_connection (account_id, processor, test_mode, vendor_account) WHERE NOT is_duplicate;

-- down
DROP INDEX processor_connection_vendor_account;
ALTER TABLE processor_connection DROP COLUMN is_duplicate;
ALTER TABLE processor_connection DROP COLUMN webhook_claimed_until;

-- Who caused it: a public id of a user, API key or contact, or "system:Paythread", "processor:Stripe". Null: a row of an older
-- version, of which the column with the user's id says what is known.

ALTER TABLE activity_card ADD COLUMN actor VARCHAR(160);
ALTER TABLE message ADD COLUMN author VARCHAR(160);
ALTER TABLE payment_request ADD COLUMN created_by VARCHAR(160);
ALTER TABLE payment_request ADD COLUMN void_requested_by VARCHAR(160);
ALTER TABLE money_fact ADD COLUMN recorded_by VARCHAR(160);
ALTER TABLE refund ADD COLUMN requested_by VARCHAR(160);
ALTER TABLE audit_entry ADD COLUMN actor VARCHAR(160);

-- down
ALTER TABLE audit_entry DROP COLUMN actor;
ALTER TABLE refund DROP COLUMN requested_by;
ALTER TABLE money_fact DROP COLUMN recorded_by;
ALTER TABLE payment_request DROP COLUMN void_requested_by;
ALTER TABLE payment_request DROP COLUMN created_by;
ALTER TABLE message DROP COLUMN author;
ALTER TABLE activity_card DROP COLUMN actor;

-- A payment that takes days (a voucher, a bank debit) no longer holds the link once it was released.

ALTER TABLE checkout_session ADD COLUMN processing_at TIMESTAMP;
ALTER TABLE checkout_session ADD COLUMN delayed INT NOT NULL DEFAULT 0;
ALTER TABLE checkout_session ADD COLUMN delayed_method VARCHAR(60);
ALTER TABLE checkout_session ADD COLUMN delayed_until TIMESTAMP;
ALTER TABLE checkout_session ADD COLUMN released_at TIMESTAMP;
ALTER TABLE payment_request ADD COLUMN releasable_at TIMESTAMP;
ALTER TABLE payment_request ADD COLUMN released_at TIMESTAMP;

-- down
ALTER TABLE payment_request DROP COLUMN released_at;
ALTER TABLE payment_request DROP COLUMN releasable_at;
ALTER TABLE checkout_session DROP COLUMN released_at;
ALTER TABLE checkout_session DROP COLUMN delayed_until;
ALTER TABLE checkout_session DROP COLUMN delayed_method;
ALTER TABLE checkout_session DROP COLUMN delayed;
ALTER TABLE checkout_session DROP COLUMN processing_at;

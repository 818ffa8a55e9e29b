-- Cards and notices of payments that a processor refuses to take, and of processors that end their connection.

ALTER TABLE activity_card DROP CONSTRAINT activity_card_kind_valid;
ALTER TABLE activity_card ADD CONSTRAINT activity_card_kind_valid CHECK (
    kind IN ('PAYMENT_REQUEST', 'PAYMENT_RECEIVED', 'PARTIAL_PAYMENT', 'PAYMENT_PROCESSING', 'PAYMENT_FAILED',
    'PAYMENT_MISMATCH', 'REQUEST_VOIDED', 'REFUND_ISSUED', 'REFUND_FAILED', 'DISPUTE_OPENED', 'DISPUTE_CLOSED',
    'REMINDER_SENT', 'LATE_PAYMENT', 'EXCESS_PAYMENT', 'DELIVERY_FAILED', 'RECORDED_OUTSIDE', 'CARD_SAVED',
    'CHECKOUT_REFUSED', 'PROCESSOR_DISCONNECTED')
);

-- down
-- Fails where such a card was logged: the older version can't show it, and a card is never deleted.
ALTER TABLE activity_card DROP CONSTRAINT activity_card_kind_valid;
ALTER TABLE activity_card ADD CONSTRAINT activity_card_kind_valid CHECK (
    kind IN ('PAYMENT_REQUEST', 'PAYMENT_RECEIVED', 'PARTIAL_PAYMENT', 'PAYMENT_PROCESSING', 'PAYMENT_FAILED',
    'PAYMENT_MISMATCH', 'REQUEST_VOIDED', 'REFUND_ISSUED', 'REFUND_FAILED', 'DISPUTE_OPENED', 'DISPUTE_CLOSED',
    'REMINDER_SENT', 'LATE_PAYMENT', 'EXCESS_PAYMENT', 'DELIVERY_FAILED', 'RECORDED_OUTSIDE', 'CARD_SAVED')
);

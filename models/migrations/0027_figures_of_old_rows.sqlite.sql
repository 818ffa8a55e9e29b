-- The figures of rows from before, and the index from which a median is read.

CREATE INDEX payment_request_took ON payment_request (
    account_id, test_mode, currency,
    (CASE WHEN length(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT)) < 3
        THEN CAST(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT) AS INTEGER)
        ELSE length(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT)) * 100
            + CAST(substr(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT), 1, 2) AS INTEGER) END),
    paid_at, sent_at, status
) WHERE status = 'PAID' AND paid_at >= sent_at;

-- One statement sees one moment: what was counted since the triggers exist is taken off.
INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
SELECT account_id, currency, test_mode, at, took, sum(sent_count), sum(requested_minor), sum(converted_count), sum(outstanding_minor), sum(paid_count), sum(charge_count), sum(paid_minor)
FROM (
    SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_request
    UNION ALL SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_money
    UNION ALL SELECT account_id, currency, test_mode, at, took, -sent_count, -requested_minor, -converted_count, -outstanding_minor, -paid_count, -charge_count, -paid_minor FROM figure_change
) part
GROUP BY account_id, currency, test_mode, at, took
HAVING sum(sent_count) <> 0 OR sum(requested_minor) <> 0 OR sum(converted_count) <> 0 OR sum(outstanding_minor) <> 0 OR sum(paid_count) <> 0 OR sum(charge_count) <> 0 OR sum(paid_minor) <> 0;

-- down
DELETE FROM figure_change;
DROP INDEX payment_request_took;

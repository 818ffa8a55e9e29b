-- The figures of rows from before, and the index from which a median is read.
-- no-transaction

DROP INDEX CONCURRENTLY IF EXISTS payment_request_took;
CREATE INDEX CONCURRENTLY payment_request_took ON payment_request (
    account_id, test_mode, currency,
    (CASE WHEN length(floor(extract(epoch FROM paid_at - sent_at))::bigint::text) < 3 THEN (floor(extract(epoch FROM paid_at - sent_at))::bigint::text)::int
        ELSE length(floor(extract(epoch FROM paid_at - sent_at))::bigint::text) * 100 + left(floor(extract(epoch FROM paid_at - sent_at))::bigint::text, 2)::int END),
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
DROP INDEX CONCURRENTLY IF EXISTS payment_request_took;

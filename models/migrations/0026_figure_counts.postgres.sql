-- The dashboard's figures as counts per quarter of an hour in UTC, for each currency and mode, from which every range of days is added up.
-- Triggers write each change; services/payments/figure_counts.py sums them up. The conditions are those of services/thread/figures.py.
-- `took`: a class of the seconds from sending to payment (the number of digits and the first two of them); -1: no time is known.

CREATE TABLE figure_change (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id UUID NOT NULL,
    currency VARCHAR(3) NOT NULL,
    test_mode BOOL NOT NULL,
    at BIGINT NOT NULL,
    took INT NOT NULL,
    sent_count BIGINT NOT NULL,
    requested_minor BIGINT NOT NULL,
    converted_count BIGINT NOT NULL,
    outstanding_minor BIGINT NOT NULL,
    paid_count BIGINT NOT NULL,
    charge_count BIGINT NOT NULL,
    paid_minor BIGINT NOT NULL
);
CREATE INDEX figure_change_account_id ON figure_change (account_id);

-- `span`: the seconds from `starts` on that a row sums up; 0: all.
CREATE TABLE figure_count (
    account_id UUID NOT NULL,
    test_mode BOOL NOT NULL,
    span INT NOT NULL,
    starts BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    took INT NOT NULL,
    sent_count BIGINT NOT NULL,
    requested_minor BIGINT NOT NULL,
    converted_count BIGINT NOT NULL,
    outstanding_minor BIGINT NOT NULL,
    paid_count BIGINT NOT NULL,
    charge_count BIGINT NOT NULL,
    paid_minor BIGINT NOT NULL,
    PRIMARY KEY (account_id, test_mode, span, starts, currency, took)
);

-- What each row adds to the figures.
CREATE VIEW figure_of_request AS
SELECT id, account_id, currency, test_mode, floor(extract(epoch FROM coalesce(sent_at, created_at)) / 900)::bigint * 900 AS at, -1 AS took,
    1 AS sent_count, amount_minor AS requested_minor, CASE WHEN status = 'PAID' THEN 1 ELSE 0 END AS converted_count,
    CASE WHEN status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND amount_minor - amount_paid_minor - waived_minor > 0
        THEN amount_minor - amount_paid_minor - waived_minor ELSE 0 END AS outstanding_minor,
    0 AS paid_count, 0 AS charge_count, 0 AS paid_minor
FROM payment_request WHERE status NOT IN ('DRAFT', 'VOID') AND discarded_at IS NULL
UNION ALL
SELECT id, account_id, currency, test_mode, floor(extract(epoch FROM paid_at) / 900)::bigint * 900,
    CASE WHEN NOT coalesce(paid_at >= sent_at, FALSE) THEN -1 ELSE CASE WHEN length(floor(extract(epoch FROM paid_at - sent_at))::bigint::text) < 3 THEN (floor(extract(epoch FROM paid_at - sent_at))::bigint::text)::int
        ELSE length(floor(extract(epoch FROM paid_at - sent_at))::bigint::text) * 100 + left(floor(extract(epoch FROM paid_at - sent_at))::bigint::text, 2)::int END END,
    0, 0, 0, 0, 1, 0, 0
FROM payment_request WHERE status = 'PAID' AND paid_at IS NOT NULL;

CREATE VIEW figure_of_money AS
SELECT id, account_id, currency, test_mode, floor(extract(epoch FROM occurred_at) / 900)::bigint * 900 AS at, -1 AS took,
    0 AS sent_count, 0 AS requested_minor, 0 AS converted_count, 0 AS outstanding_minor,
    0 AS paid_count, 1 AS charge_count, amount_minor AS paid_minor
FROM money_fact f
WHERE kind = 'CHARGE' AND outcome = 'SUCCEEDED' AND NOT EXISTS (
    SELECT 1 FROM money_fact undone WHERE f.processor_connection_id IS NULL AND undone.processor_connection_id IS NULL
    AND undone.account_id = f.account_id AND undone.kind = f.kind AND undone.external_id = f.external_id
    AND undone.outcome = 'CANCELED'
);

CREATE FUNCTION figures_of_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_WHEN = 'BEFORE' THEN
        INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
        SELECT account_id, currency, test_mode, at, took, -sent_count, -requested_minor, -converted_count, -outstanding_minor, -paid_count, -charge_count, -paid_minor FROM figure_of_request
        WHERE id = OLD.id;
    ELSE
        INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
        SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_request
        WHERE id = NEW.id;
    END IF;
    RETURN NEW;
END
$$;
CREATE FUNCTION figures_of_money() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.outcome = 'SUCCEEDED' THEN
        INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
        SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_money
        WHERE id = NEW.id;
    ELSIF NEW.processor_connection_id IS NULL THEN
        INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
        SELECT account_id, currency, test_mode, floor(extract(epoch FROM occurred_at) / 900)::bigint * 900, -1, 0, 0, 0, 0, 0, -1, -amount_minor FROM money_fact
        WHERE processor_connection_id IS NULL AND account_id = NEW.account_id AND kind = 'CHARGE'
            AND external_id = NEW.external_id AND outcome = 'SUCCEEDED';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER payment_request_figures_inserted AFTER INSERT ON payment_request
    FOR EACH ROW WHEN (NEW.status <> 'DRAFT') EXECUTE FUNCTION figures_of_request();
CREATE TRIGGER payment_request_figures_updates BEFORE UPDATE ON payment_request FOR EACH ROW WHEN (
    NEW.status IS DISTINCT FROM OLD.status
    OR NEW.discarded_at IS DISTINCT FROM OLD.discarded_at
    OR NEW.sent_at IS DISTINCT FROM OLD.sent_at
    OR NEW.paid_at IS DISTINCT FROM OLD.paid_at
    OR NEW.amount_minor IS DISTINCT FROM OLD.amount_minor
    OR NEW.amount_paid_minor IS DISTINCT FROM OLD.amount_paid_minor
    OR NEW.waived_minor IS DISTINCT FROM OLD.waived_minor
    OR NEW.created_at IS DISTINCT FROM OLD.created_at
    OR NEW.currency IS DISTINCT FROM OLD.currency
    OR NEW.test_mode IS DISTINCT FROM OLD.test_mode
) EXECUTE FUNCTION figures_of_request();
CREATE TRIGGER payment_request_figures_updated AFTER UPDATE ON payment_request FOR EACH ROW WHEN (
    NEW.status IS DISTINCT FROM OLD.status
    OR NEW.discarded_at IS DISTINCT FROM OLD.discarded_at
    OR NEW.sent_at IS DISTINCT FROM OLD.sent_at
    OR NEW.paid_at IS DISTINCT FROM OLD.paid_at
    OR NEW.amount_minor IS DISTINCT FROM OLD.amount_minor
    OR NEW.amount_paid_minor IS DISTINCT FROM OLD.amount_paid_minor
    OR NEW.waived_minor IS DISTINCT FROM OLD.waived_minor
    OR NEW.created_at IS DISTINCT FROM OLD.created_at
    OR NEW.currency IS DISTINCT FROM OLD.currency
    OR NEW.test_mode IS DISTINCT FROM OLD.test_mode
) EXECUTE FUNCTION figures_of_request();
CREATE TRIGGER money_fact_figures_arrived AFTER INSERT ON money_fact
    FOR EACH ROW WHEN (NEW.kind = 'CHARGE' AND NEW.outcome = 'SUCCEEDED') EXECUTE FUNCTION figures_of_money();
CREATE TRIGGER money_fact_figures_undone AFTER INSERT ON money_fact
    FOR EACH ROW WHEN (NEW.kind = 'CHARGE' AND NEW.outcome = 'CANCELED') EXECUTE FUNCTION figures_of_money();

-- down
DROP TRIGGER money_fact_figures_undone ON money_fact;
DROP TRIGGER money_fact_figures_arrived ON money_fact;
DROP TRIGGER payment_request_figures_updated ON payment_request;
DROP TRIGGER payment_request_figures_updates ON payment_request;
DROP TRIGGER payment_request_figures_inserted ON payment_request;
DROP FUNCTION figures_of_money();
DROP FUNCTION figures_of_request();
DROP VIEW figure_of_money;
DROP VIEW figure_of_request;
DROP TABLE figure_count;
DROP TABLE figure_change;

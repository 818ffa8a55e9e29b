-- The dashboard's figures as counts per quarter of an hour in UTC, for each currency and mode, from which every range of days is added up.
-- Triggers write each change; services/payments/figure_counts.py sums them up. The conditions are those of services/thread/figures.py.
-- `took`: a class of the seconds from sending to payment (the number of digits and the first two of them); -1: no time is known.

CREATE TABLE figure_change (
    id INTEGER NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL,
    currency VARCHAR(3) NOT NULL,
    test_mode INT NOT NULL,
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
    account_id CHAR(36) NOT NULL,
    test_mode INT NOT NULL,
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
) WITHOUT ROWID;

-- What each row adds to the figures.
CREATE VIEW figure_of_request AS
SELECT id, account_id, currency, test_mode, CAST(strftime('%s', coalesce(sent_at, created_at)) AS INTEGER) / 900 * 900 AS at, -1 AS took,
    1 AS sent_count, amount_minor AS requested_minor, CASE WHEN status = 'PAID' THEN 1 ELSE 0 END AS converted_count,
    CASE WHEN status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND amount_minor - amount_paid_minor - waived_minor > 0
        THEN amount_minor - amount_paid_minor - waived_minor ELSE 0 END AS outstanding_minor,
    0 AS paid_count, 0 AS charge_count, 0 AS paid_minor
FROM payment_request WHERE status NOT IN ('DRAFT', 'VOID') AND discarded_at IS NULL
UNION ALL
SELECT id, account_id, currency, test_mode, CAST(strftime('%s', paid_at) AS INTEGER) / 900 * 900,
    CASE WHEN NOT coalesce(paid_at >= sent_at, 0) THEN -1 ELSE CASE WHEN length(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT)) < 3
        THEN CAST(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT) AS INTEGER)
        ELSE length(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT)) * 100
            + CAST(substr(CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT), 1, 2) AS INTEGER) END END,
    0, 0, 0, 0, 1, 0, 0
FROM payment_request WHERE status = 'PAID' AND paid_at IS NOT NULL;

CREATE VIEW figure_of_money AS
SELECT id, account_id, currency, test_mode, CAST(strftime('%s', occurred_at) AS INTEGER) / 900 * 900 AS at, -1 AS took,
    0 AS sent_count, 0 AS requested_minor, 0 AS converted_count, 0 AS outstanding_minor,
    0 AS paid_count, 1 AS charge_count, amount_minor AS paid_minor
FROM money_fact f
WHERE kind = 'CHARGE' AND outcome = 'SUCCEEDED' AND NOT EXISTS (
    SELECT 1 FROM money_fact undone WHERE f.processor_connection_id IS NULL AND undone.processor_connection_id IS NULL
    AND undone.account_id = f.account_id AND undone.kind = f.kind AND undone.external_id = f.external_id
    AND undone.outcome = 'CANCELED'
);

CREATE TRIGGER payment_request_figures_inserted AFTER INSERT ON payment_request WHEN NEW.status <> 'DRAFT' BEGIN
    INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
    SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_request
    WHERE id = NEW.id;
END;
CREATE TRIGGER payment_request_figures_updates BEFORE UPDATE ON payment_request WHEN
    NEW.status IS NOT OLD.status
    OR NEW.discarded_at IS NOT OLD.discarded_at
    OR NEW.sent_at IS NOT OLD.sent_at
    OR NEW.paid_at IS NOT OLD.paid_at
    OR NEW.amount_minor IS NOT OLD.amount_minor
    OR NEW.amount_paid_minor IS NOT OLD.amount_paid_minor
    OR NEW.waived_minor IS NOT OLD.waived_minor
    OR NEW.created_at IS NOT OLD.created_at
    OR NEW.currency IS NOT OLD.currency
    OR NEW.test_mode IS NOT OLD.test_mode
BEGIN
    INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
    SELECT account_id, currency, test_mode, at, took, -sent_count, -requested_minor, -converted_count, -outstanding_minor, -paid_count, -charge_count, -paid_minor FROM figure_of_request
    WHERE id = OLD.id;
END;
CREATE TRIGGER payment_request_figures_updated AFTER UPDATE ON payment_request WHEN
    NEW.status IS NOT OLD.status
    OR NEW.discarded_at IS NOT OLD.discarded_at
    OR NEW.sent_at IS NOT OLD.sent_at
    OR NEW.paid_at IS NOT OLD.paid_at
    OR NEW.amount_minor IS NOT OLD.amount_minor
    OR NEW.amount_paid_minor IS NOT OLD.amount_paid_minor
    OR NEW.waived_minor IS NOT OLD.waived_minor
    OR NEW.created_at IS NOT OLD.created_at
    OR NEW.currency IS NOT OLD.currency
    OR NEW.test_mode IS NOT OLD.test_mode
BEGIN
    INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
    SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_request
    WHERE id = NEW.id;
END;
CREATE TRIGGER money_fact_figures_arrived AFTER INSERT ON money_fact
WHEN NEW.kind = 'CHARGE' AND NEW.outcome = 'SUCCEEDED' BEGIN
    INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
    SELECT account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor FROM figure_of_money
    WHERE id = NEW.id;
END;
CREATE TRIGGER money_fact_figures_undone AFTER INSERT ON money_fact
WHEN NEW.kind = 'CHARGE' AND NEW.outcome = 'CANCELED' AND NEW.processor_connection_id IS NULL BEGIN
    INSERT INTO figure_change (account_id, currency, test_mode, at, took, sent_count, requested_minor, converted_count, outstanding_minor, paid_count, charge_count, paid_minor)
    SELECT account_id, currency, test_mode, CAST(strftime('%s', occurred_at) AS INTEGER) / 900 * 900, -1, 0, 0, 0, 0, 0, -1, -amount_minor FROM money_fact
    WHERE processor_connection_id IS NULL AND account_id = NEW.account_id AND kind = 'CHARGE'
        AND external_id = NEW.external_id AND outcome = 'SUCCEEDED';
END;

-- down
DROP TRIGGER money_fact_figures_undone;
DROP TRIGGER money_fact_figures_arrived;
DROP TRIGGER payment_request_figures_updated;
DROP TRIGGER payment_request_figures_updates;
DROP TRIGGER payment_request_figures_inserted;
DROP VIEW figure_of_money;
DROP VIEW figure_of_request;
DROP TABLE figure_count;
DROP TABLE figure_change;

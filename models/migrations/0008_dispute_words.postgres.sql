-- A dispute can be lost and then won on appeal: of a dispute each word of the vendor is a fact, by its time.

ALTER TABLE money_fact DROP CONSTRAINT money_fact_processor_connection_id_kind_external_id_outcome_key;
CREATE UNIQUE INDEX money_fact_once ON money_fact (processor_connection_id, kind, external_id, outcome) WHERE kind <> 'DISPUTE';
CREATE UNIQUE INDEX money_fact_dispute_once ON money_fact (processor_connection_id, external_id, outcome, occurred_at) WHERE kind = 'DISPUTE';

-- down
-- Fails where a dispute came to one outcome twice: the older version can't keep both, and a fact is never deleted.
DROP INDEX money_fact_dispute_once;
DROP INDEX money_fact_once;
ALTER TABLE money_fact ADD UNIQUE (processor_connection_id, kind, external_id, outcome);

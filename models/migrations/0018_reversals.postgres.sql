-- A reversal (the vendor took the money back without us) ends when the dispute about its charge is won.

ALTER TABLE money_fact ADD COLUMN reversal BOOLEAN NOT NULL DEFAULT FALSE;

-- down
ALTER TABLE money_fact DROP COLUMN reversal;

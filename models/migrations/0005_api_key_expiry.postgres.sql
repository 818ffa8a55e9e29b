-- API keys end, and manage keys and users only where a person said so. Keys made before keep working: NULL never ends.

ALTER TABLE api_key ADD COLUMN expires_at TIMESTAMPTZ;
ALTER TABLE api_key ADD COLUMN manages_keys BOOLEAN NOT NULL DEFAULT FALSE;

-- down
ALTER TABLE api_key DROP COLUMN manages_keys;
ALTER TABLE api_key DROP COLUMN expires_at;

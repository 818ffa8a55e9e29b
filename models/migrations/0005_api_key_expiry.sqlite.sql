-- API keys end, and manage keys and users only where a person said so. Keys made before keep working: NULL never ends.

ALTER TABLE api_key ADD COLUMN expires_at TIMESTAMP;
ALTER TABLE api_key ADD COLUMN manages_keys INT NOT NULL DEFAULT 0;

-- down
ALTER TABLE api_key DROP COLUMN manages_keys;
ALTER TABLE api_key DROP COLUMN expires_at;

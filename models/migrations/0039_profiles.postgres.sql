-- What a user sees of each sign-in, and the user's own language and time zone.

ALTER TABLE refresh_token ADD COLUMN signed_in_at TIMESTAMPTZ;
ALTER TABLE refresh_token ADD COLUMN device VARCHAR(60);
ALTER TABLE refresh_token ADD COLUMN network VARCHAR(50);
ALTER TABLE user_account ADD COLUMN locale VARCHAR(20);
ALTER TABLE user_account ADD COLUMN time_zone VARCHAR(64);

-- down
ALTER TABLE user_account DROP COLUMN time_zone;
ALTER TABLE user_account DROP COLUMN locale;
ALTER TABLE refresh_token DROP COLUMN network;
ALTER TABLE refresh_token DROP COLUMN device;
ALTER TABLE refresh_token DROP COLUMN signed_in_at;

-- Links that users get by email: one per user and purpose; only the hash of a token is stored.

CREATE TABLE user_token (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    user_id CHAR(36) NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    purpose VARCHAR(16) NOT NULL,
    token_hash VARCHAR(64) NOT NULL UNIQUE,
    email VARCHAR(254),
    expires_at TIMESTAMP NOT NULL,
    created_at TIMESTAMP NOT NULL,
    CONSTRAINT user_token_purpose_valid CHECK (purpose IN ('PASSWORD_RESET', 'EMAIL_CHANGE')),
    UNIQUE (user_id, purpose)
);

-- down
DROP TABLE user_token;

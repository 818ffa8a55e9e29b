-- Invitations of users: only the hash of a token is stored; an address has at most one that is neither accepted nor revoked.

CREATE TABLE invitation (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    email VARCHAR(254) NOT NULL,
    name VARCHAR(120),
    role VARCHAR(10) NOT NULL,
    token_hash VARCHAR(64) NOT NULL UNIQUE,
    invited_by_id CHAR(36),
    expires_at TIMESTAMP NOT NULL,
    accepted_at TIMESTAMP,
    user_id CHAR(36) REFERENCES user_account (id) ON DELETE RESTRICT,
    revoked_at TIMESTAMP,
    emailed_at TIMESTAMP,
    email_error VARCHAR(300),
    created_at TIMESTAMP NOT NULL,
    CONSTRAINT invitation_role_valid CHECK (role IN ('OWNER', 'ADMIN', 'AGENT', 'VIEWER'))
);
CREATE INDEX invitation_account_id ON invitation (account_id, id);
CREATE UNIQUE INDEX invitation_open ON invitation (account_id, email) WHERE accepted_at IS NULL AND revoked_at IS NULL;

-- down
DROP TABLE invitation;

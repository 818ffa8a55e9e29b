-- Internal notes in the thread and whom they mention; tags of conversations, and the tags that an account has used.

CREATE TABLE note (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    conversation_id UUID NOT NULL REFERENCES conversation (id) ON DELETE RESTRICT,
    contact_id UUID NOT NULL REFERENCES contact (id) ON DELETE RESTRICT,
    seq BIGINT NOT NULL,
    body TEXT NOT NULL,
    author VARCHAR(160) NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    UNIQUE (conversation_id, seq)
);

CREATE TABLE note_mention (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    note_id UUID NOT NULL REFERENCES note (id) ON DELETE RESTRICT,
    user_id UUID NOT NULL REFERENCES user_account (id) ON DELETE RESTRICT,
    UNIQUE (note_id, user_id)
);

CREATE TABLE tag (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    name VARCHAR(50) NOT NULL,
    UNIQUE (account_id, name)
);

ALTER TABLE conversation ADD COLUMN tags JSONB NOT NULL DEFAULT '[]';

-- down
ALTER TABLE conversation DROP COLUMN tags;
DROP TABLE tag;
DROP TABLE note_mention;
DROP TABLE note;

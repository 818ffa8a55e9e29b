-- When the vendor's newest block, or end of one, of an address was: an older one that comes later changes nothing.

CREATE TABLE blocking (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    channel_connection_id UUID NOT NULL REFERENCES channel_connection (id) ON DELETE RESTRICT,
    address VARCHAR(254) NOT NULL,
    told_at TIMESTAMPTZ NOT NULL,
    UNIQUE (channel_connection_id, address)
);

-- down
DROP TABLE blocking;

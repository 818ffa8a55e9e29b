-- Saved lists: a filter and an order over payment requests or conversations, of one user or shared by the account.

CREATE TABLE saved_view (
    id CHAR(36) NOT NULL PRIMARY KEY,
    account_id CHAR(36) NOT NULL REFERENCES account (id) ON DELETE RESTRICT,
    owner_user_id CHAR(36) REFERENCES user_account (id) ON DELETE RESTRICT,
    subject VARCHAR(16) NOT NULL,
    name VARCHAR(80) NOT NULL,
    conditions JSON NOT NULL,
    order_field VARCHAR(20) NOT NULL,
    descending INT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    CONSTRAINT saved_view_subject_valid CHECK (subject IN ('PAYMENT_REQUEST', 'CONVERSATION'))
);
CREATE INDEX saved_view_account ON saved_view (account_id, id);

-- down
DROP TABLE saved_view;

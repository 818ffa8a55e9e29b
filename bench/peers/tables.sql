CREATE TABLE conversation (id TEXT PRIMARY KEY);
CREATE TABLE thread_item (
    id INTEGER PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT,
    direction TEXT,
    channel TEXT,
    status TEXT NOT NULL,
    title TEXT,
    amount_minor INTEGER,
    currency TEXT,
    at TEXT NOT NULL
);
CREATE INDEX thread_item_of ON thread_item (conversation_id, id);
CREATE TABLE webhook_event (id TEXT PRIMARY KEY, type TEXT NOT NULL, received_at TEXT NOT NULL);
CREATE TABLE invoice (id TEXT PRIMARY KEY, status TEXT NOT NULL, paid_at TEXT);
CREATE TABLE activity_card (
    id TEXT PRIMARY KEY,
    invoice_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    at TEXT NOT NULL
);

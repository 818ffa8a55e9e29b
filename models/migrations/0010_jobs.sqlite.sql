-- Jobs: when the due time was set, by which a clock that was set back is found out; a wish to run once more while the job runs.

ALTER TABLE job ADD COLUMN set_at TIMESTAMP;
ALTER TABLE job ADD COLUMN again_at TIMESTAMP;

-- Only what is queued is due; what runs is looked at as a whole.
DROP INDEX job_due;
CREATE INDEX job_due ON job (due_at) WHERE status = 'queued';
CREATE INDEX job_running ON job (id) WHERE status = 'running';

-- What the sweep for work without a job looks at.
CREATE INDEX message_unsent ON message (id) WHERE delivery_status IN ('QUEUED', 'SENDING');
CREATE INDEX attachment_pending ON attachment (id) WHERE status = 'PENDING';
CREATE INDEX refund_undecided ON refund (id) WHERE status IN ('PENDING', 'UNKNOWN');
CREATE INDEX checkout_session_open ON checkout_session (id) WHERE status IN ('OPENING', 'OPEN');

-- down
DROP INDEX checkout_session_open;
DROP INDEX refund_undecided;
DROP INDEX attachment_pending;
DROP INDEX message_unsent;
DROP INDEX job_running;
DROP INDEX job_due;
CREATE INDEX job_due ON job (due_at) WHERE status IN ('queued', 'running');
ALTER TABLE job DROP COLUMN again_at;
ALTER TABLE job DROP COLUMN set_at;

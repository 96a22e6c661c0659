-- How many operations of a caller run is counted whenever one is recorded.
CREATE INDEX operations_running_by ON operations (requested_by) WHERE status = 'running';

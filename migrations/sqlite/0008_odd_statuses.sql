-- Operations whose status is no known word: whether they have ended nobody can tell. There are hardly ever any.
CREATE INDEX operations_odd ON operations (project, service, task)
    WHERE status NOT IN ('running', 'succeeded', 'failed', 'cancelled', 'superseded');

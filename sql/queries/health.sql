-- Health: /health/ready.

-- name: migrations
-- What this database has taken, by name.
select coalesce(jsonb_object_agg(m.name, m.checksum), '{}') as checksums
from schema_migrations as m

"""Records: units of work with group commit, the schema's common parts, migrations, the outbox."""

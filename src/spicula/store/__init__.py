"""Studies, findings, jobs, users and what was done to them: SQLite and files, or PostgreSQL by URL; one file a matter."""

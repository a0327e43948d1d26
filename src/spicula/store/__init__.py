"""Studies, findings, jobs, users, and what was done to them: in SQLite and files, or in PostgreSQL; a file each."""

"""Everything that talks to Postgres. asyncpg is imported here and nowhere else."""

"""run: what the commands do, as plain functions, one file a job. Evaluation loads no network and no torch."""

"""`python -m benchmark speed`: one file per measurement, and the workloads that they share."""

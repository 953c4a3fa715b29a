"""Records -> tables, figures, page: what benchmarks/report.py puts together."""

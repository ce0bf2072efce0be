"""Values for tokens in tables: columns in Arrow (arrow.py), and DuckDB on top of them (duckdb.py).

Everything here is a client of the API, and needs the extra ``analytics``. quorumvault.detokenize, tokenize and register are
those of duckdb.py.
"""

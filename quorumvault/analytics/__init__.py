"""Values for tokens in tables: Arrow columns (arrow.py), and built on them DuckDB (duckdb.py), dbt (dbt.py) and Spark (spark.py).

Every module here is a client of the API and needs the extra ``analytics``; dbt.py also needs ``dbt``, and spark.py ``spark``.
quorumvault.detokenize, tokenize and register come from duckdb.py, and quorumvault.spark is spark.py.
"""

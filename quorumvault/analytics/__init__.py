"""Values for tokens in tables: columns in Arrow (arrow.py); on top of that DuckDB (duckdb.py), dbt (dbt.py) and Spark (spark.py).

Everything here is a client of the API, and needs the extra ``analytics``, dbt.py also ``dbt``, and spark.py ``spark``.
quorumvault.detokenize, tokenize and register are those of duckdb.py, and quorumvault.spark is spark.py.
"""

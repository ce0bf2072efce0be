"""Runs files through the vault: any number of files of any length, all or nothing, and resumable.

    sources.py      which files: globs, folders, tables       job.py          the job of a run, and the counts of its report
    run.py          the run: parts, then files, then names    manifest.py     the plan of a run, and its finished parts
    work_folder.py  the folder with a run's state             part_files.py   the files of one part, and its lists
    outputs.py      where outputs go and get their names      outcomes.py     the outcome of a cell, by status and options
    answers.py      the vault's answers, cached               engine.py       the interface of a format
    stream.py       standard input to standard output         census.py       tokens counted by epoch, without a vault
    crosswalk.py    old tokens and new ones, as Parquet

    urls.py         names of objects                       object_store.py  object stores, through fsspec
    copies.py       objects that are read                  new_object.py    an object that appears when it is complete
    uploads.py      outputs that are objects

    text/           CSV and JSON Lines: parts of rows         columnar/       Parquet and DuckDB tables: columns, in Arrow

``columnar/`` and ``crosswalk.py`` need the extra ``analytics`` and are imported when a source asks for them.
"""

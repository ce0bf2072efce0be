"""Files through the vault: any number of them, of any length, all or nothing, and resumable.

    sources.py      which files: globs, folders, tables        manifest.py     what a run is about, and what of it is done
    job.py          what is to be done, and what was done      workfolder.py   where both are kept until the run is whole
    run.py          the run: parts, then files, then names     pieces.py       the files of one part

    textfiles.py    CSV and JSON Lines: parts of rows          parquetfiles.py Parquet: parts of row groups, columns alone
    textrows.py     cells of rows and their answers            duckdbtables.py tables in DuckDB files: parts of rows
    remembered.py   answers to texts, in SQLite                answers.py      answers to columns of text, in DuckDB
                                                               columns.py      what answers make of a column

What is on the right needs the extra ``analytics`` and is imported when a source asks for it.
"""

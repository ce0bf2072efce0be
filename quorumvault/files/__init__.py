"""Files through the vault: any number of them, of any length, all or nothing, and resumable.

    sources.py      which files: globs, folders, tables       job.py          what a run is to do, and the counts of what it did
    run.py          the run: parts, then files, then names    manifest.py     what a run is about, and which parts are done
    work_folder.py  the folder in which a run is kept         part_files.py   the files of one part, and its lists
    outputs.py      where outputs go and get their names      outcomes.py     what becomes of a cell, by status and options
    answers.py      answers of the vault, remembered          engine.py       what a run asks of a format
    stream.py       standard input to standard output         census.py       tokens counted by epoch, without a vault
    crosswalk.py    old tokens and new ones, as Parquet

    urls.py         names of objects                       object_store.py  what is asked of object stores, by fsspec
    copies.py       objects that are read                  new_object.py    an object that appears at its end
    uploads.py      outputs that are objects

    text/           CSV and JSON Lines: parts of rows         columnar/       Parquet and DuckDB tables: columns, in Arrow

``columnar/`` and ``crosswalk.py`` need the extra ``analytics`` and are imported when a source asks for them.
"""

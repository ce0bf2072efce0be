"""Tables as text files, read and written exactly: what nobody asked to replace goes out as it came in.

    table.py      what a table is, whatever its format     csv.py        RFC 4180, every byte kept
    lines.py      lines of a stream, counted and bounded   jsonlines.py  one JSON object a line

Reading is a stream: a table of any length takes the memory of the rows that are being worked on.
"""

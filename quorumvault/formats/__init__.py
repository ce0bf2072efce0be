"""Exact readers and writers: what nobody asked to replace goes out as it came in.

    json.py       JSON texts, judged and taken apart in steps    csv.py         RFC 4180, every byte kept
    jsonpath.py   the expressions that name fields               json_lines.py  one JSON object a line
    fields.py     the fields of a record, found by a trie        table.py       what a table is, whatever its format
    yaml.py       configuration files, without YAML's surprises  lines.py       lines of a stream, counted and bounded

Tables are read as streams: one of any length takes the memory of the rows that are being worked on.
"""

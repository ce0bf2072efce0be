"""Exact readers and writers: they change only what the caller asks to replace.

    json.py       JSON texts, checked and decoded in steps       csv.py         RFC 4180, every byte kept
    jsonpath.py   the expressions that name fields               json_lines.py  one JSON object a line
    fields.py     the fields of a record, found by a trie        table.py       the interface of a table, whatever its format
    yaml.py       configuration files, without YAML's surprises  lines.py       lines of a stream, counted and bounded

Tables are read as streams: memory holds only the rows being worked on, whatever the length of the table.
"""

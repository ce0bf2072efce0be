"""The drawings in diagrams/: D2 sources, an SVG beside each, and the programs that draw what the code and a cluster show.

rooms.py     the folders, the purpose of each, and which of them need which others
routes.py    the paths of the API and of the administrative socket
running.py   processes, sockets and files of a running cluster
__main__.py  bin/diagrams: writes 3-as-built.d2, and renders every source
"""

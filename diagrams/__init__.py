"""The drawings of diagrams/: D2 sources, the SVG beside each, and the programs that draw what can be drawn from what runs.

rooms.py     the folders, what each is for, and who needs whom
routes.py    the paths of the API and of the administrative socket
running.py   processes, sockets and files of a cluster that runs
__main__.py  bin/diagrams: writes 3-as-built.d2, and renders every source
"""

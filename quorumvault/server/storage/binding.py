"""LevelDB's Python binding, under one name whichever is installed: ``from quorumvault.server.storage.binding import plyvel``.

plyvel has no wheels from Python 3.13 on; plyvel-next, the same code kept up by others, has, and calls its module ``plyvel_next``.
Nobody imports either of them by itself.
"""

try:
    import plyvel
except ModuleNotFoundError:
    import plyvel_next as plyvel

__all__ = ["plyvel"]

"""LevelDB's Python binding, under one name whichever is installed: ``from quorumvault.server.storage.binding import plyvel``.

plyvel has no wheels for Python 3.13 and later. plyvel-next, a maintained fork of the same code, has them, and names its module
``plyvel_next``. No other module imports either of the two directly.
"""

try:
    import plyvel
except ModuleNotFoundError:
    import plyvel_next as plyvel

__all__ = ["plyvel"]

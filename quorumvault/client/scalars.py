"""Converts nulls and scalars of numpy, pandas and pyarrow to Python's own.

This module imports none of these packages: a caller with one of their values has imported it already.
"""

import sys
from decimal import Decimal
from typing import Any, Final

#: Usual spellings of a missing value. An empty cell without quotes is CSV's own null.
USUAL_NULLS: Final = frozenset(
    {
        *("", "NULL", "null", "Null", "(null)", "NIL", "nil", "\\N", "-", "--", ".", "?"),
        *("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "None", "none"),
    }
)


def plain(value: Any) -> Any:
    """Returns the text, integer, boolean, float or None that ``value`` stands for; ``value`` itself if it is none of these.

    None, NaN (of any width, and of Decimal), pandas.NA and NaT become None: all of them mean that there is no value.
    """
    if isinstance(value, float):
        return None if value != value else float(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    numpy, pandas, pyarrow = (sys.modules.get(name) for name in ("numpy", "pandas", "pyarrow"))
    if numpy is not None and isinstance(value, numpy.generic):
        return _of_numpy(numpy, value)
    if pandas is not None and any(value is getattr(pandas, name, pandas) for name in ("NA", "NaT")):
        return None
    if pyarrow is not None and isinstance(value, pyarrow.Scalar):
        return plain(value.as_py())
    return value


def _of_numpy(numpy: Any, value: Any) -> Any:
    if isinstance(value, numpy.datetime64 | numpy.timedelta64):
        return None if numpy.isnat(value) else value
    if isinstance(value, numpy.floating):
        return plain(float(value))
    return value.item() if isinstance(value, numpy.bool_ | numpy.integer | numpy.str_) else value

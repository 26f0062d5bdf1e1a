"""What a study found: a frozen dataclass in code, netCDF on disk, the same axes in both.

Knows no analysis: a result is whatever its annotations say. Nothing is pickled. A field may be

tensor        `Float[Tensor, "layer head batch"]`: a variable with these dimensions; any float
              (16-bit floats as float32), integer or bool. The annotation must name every axis, and
              fields that share an axis agree on its length. A repeated axis becomes "head_2".
number, text  `int`, `float`, `bool`, `str`: a variable without dimensions; NaN and infinity too.
list, tuple   of numbers, or of strings: one dimension, named by `field(metadata={"axis": "batch"})`
              or after the field. Mixed whole and other numbers become floats.
list of       tuples of whole numbers, all of one length, as heads are: two dimensions; a NamedTuple
tuples        in the annotation is rebuilt.
ragged text   `list[list[str]]`: all strings in one row, and how many belong to each list.
record        a frozen dataclass of numbers and strings, as `Estimate` is: one variable per part.
result        a frozen dataclass with tensors, itself a result: all its fields, their names and axes
              after the field's own, "alone.effect" over "alone.layer" and "alone.head".
dict          of strings to numbers, strings or None: JSON.
None          where the annotation allows it.

Strings that netCDF cannot hold (a NUL, half a surrogate pair) are stored as JSON, whose escapes
any reader knows; the variable's attribute `text` says so. `field(metadata={"means": ..., "unit":
...})` becomes `long_name` and `units`; `"varies": "from run to run"` marks what no digest of a
result covers, such as seconds. The attribute `layout` of the file says how each field is
stored, `content` is the digest of all of them, checked whenever a file is read.
"""

from workbench.results.files import digest, load, save
from workbench.results.result import Result, drawn_by
from workbench.results.tables import to_frame, to_xarray

__all__ = ["Result", "digest", "drawn_by", "load", "save", "to_frame", "to_xarray"]

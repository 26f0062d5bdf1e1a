"""Questions one can ask of a model, each a function from model and task to a result."""

import sys

if "IPython" in sys.modules:  # in a notebook, results show themselves as a figure
    from workbench import plots  # noqa: F401

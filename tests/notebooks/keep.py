"""Run the notebooks and keep their outputs, without what is of use only while they run."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
PROGRESS = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": FOLDER}}
        NotebookClient(notebook, timeout=600, resources=where).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata.pop("execution", None)
                cell.outputs = [one for one in cell.outputs if not _passing(one)]
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, path)


def _passing(output: nbformat.NotebookNode) -> bool:
    """Plans and progress, which are said to whoever waits."""
    return output.get("name") == "stderr" or PROGRESS in output.get("data", {})


if __name__ == "__main__":
    main()

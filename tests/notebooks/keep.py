"""Run the notebooks and keep their outputs, without what is of use only while they run."""

import base64
import re
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[2] / "notebooks"
_PICTURE = re.compile(r"(data:image/png;base64,)([A-Za-z0-9+/=]+)")
PROGRESS = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": FOLDER}}
        NotebookClient(notebook, timeout=600, resources=where).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata.pop("execution", None)
                cell.outputs = [_small(one) for one in cell.outputs if not _passing(one)]
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, path)


def _passing(output: nbformat.NotebookNode) -> bool:
    """Plans and progress, which are said to whoever waits."""
    return output.get("name") == "stderr" or PROGRESS in output.get("data", {})


def _small(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same output, its pictures in 256 colours: a third of the bytes, the same to the eye."""
    if "text/html" in output.get("data", {}):
        html = "".join(output.data["text/html"])
        output.data["text/html"] = _PICTURE.sub(lambda one: one[1] + _in_palette(one[2]), html)
    return output


def _in_palette(picture: str) -> str:
    buffer = BytesIO()
    with Image.open(BytesIO(base64.b64decode(picture))) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()

"""Execute the notebooks: each a percent script, written with its outputs into the .ipynb beside it.

python -m analysis.notebooks [NAME ...]
"""

import sys
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets import default

from analysis import command
from studies.record import listed

FOLDER = Path(__file__).parent
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""A notebook's own, without what differs between machines: the versions of Python, IPython and jupytext."""


class Kernel(AsyncKernelManager):
    """The kernel of this Python, whatever others are installed."""

    @default("kernel_spec_manager")
    def _only_this(self):
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted(self):
        return "auto"


def executed(script: Path) -> nbformat.NotebookNode:
    """A percent script as a notebook with its outputs, run in the script's folder.

    Raises:
        CellExecutionError: a cell raised.
    """
    notebook = jupytext.read(script)
    for place, cell in enumerate(notebook.cells):
        cell |= {"id": f"cell-{place}", "metadata": {}}  # not jupytext's: random ids, counts of blank lines
    NotebookClient(
        notebook,
        kernel_manager_class=Kernel,
        coalesce_streams=True,
        record_timing=False,
        timeout=600,
        resources={"metadata": {"path": str(script.parent)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def main() -> int:
    """Execute those named, or all."""
    scripts = {script.stem: script for script in sorted(FOLDER.glob("[!_]*.py"))}
    made = command.Parser("python -m analysis.notebooks", description="Execute notebooks anew, in their places.")
    made.add_argument("names", nargs="*", metavar="NAME", help=f"some of {listed(scripts)} (default: all)")
    names = made.parse_args().names or list(scripts)
    if unknown := [name for name in names if name not in scripts]:
        print(f"error: no notebook {listed(unknown)}: expected some of {listed(scripts)}", file=sys.stderr)
        return 2
    for script in (scripts[name] for name in names):
        try:
            notebook = executed(script)
        except CellExecutionError as error:
            print(f"{script.name}: {error}", file=sys.stderr)
            return 1
        nbformat.write(notebook, script.with_suffix(".ipynb"))
        print(script.stem)
    return 0


if __name__ == "__main__":
    sys.exit(main())

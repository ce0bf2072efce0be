"""A notebook in a Jupyter kernel, against the API over an in-memory vault."""

from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from quorumvault.testing.serving import served
from tests.rigs.vault import Rig, key_text

CELLS = (
    (
        "import duckdb, pandas as pd, quorumvault as qv\n"
        "from quorumvault.analytics import notebook\n"
        "notebook._PATIENCE = -1.0  # seconds: a vault in memory is done before anybody looks\n"
        "df = pd.DataFrame({'ssn': [f'999-17-{number}' for number in range(3000)]})\n"
        "tokens = qv.tokenize(df, columns='ssn')"
    ),
    "qv.detokenize(duckdb.connect(), 'select ssn from tokens limit 1', columns='ssn').fetchall()",
    "qv.tokenize(df, columns='snn')",
)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[NotebookClient]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    with served(Rig().app) as url:
        monkeypatch.setenv("QUORUMVAULT_URL", url)
        monkeypatch.setenv("QUORUMVAULT_API_KEY", key_text("clinic"))
        cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
        client = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60, kernel_name="python3")
        with client.setup_kernel():
            yield client


def test_a_bar_a_frame_in_a_query_and_a_short_error(kernel: NotebookClient) -> None:
    first, second, third = kernel.nb.cells
    kernel.execute_cell(first, 0)
    (bar,) = first.outputs
    assert bar.output_type == "display_data"
    assert (bar.data["text/plain"], bar.data["text/html"]) == ("", "")  # the bar was shown and has vanished
    kernel.execute_cell(second, 1)
    assert second.outputs[-1].data["text/plain"] == "[('999-17-0', 'ok')]"
    with pytest.raises(CellExecutionError):
        kernel.execute_cell(third, 2)
    (error,) = [output for output in third.outputs if output.output_type == "error"]
    assert error.traceback == ["ColumnError: the frame has no column snn; it has ssn"]

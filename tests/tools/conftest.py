"""The script that each file of tests is named after."""

import pytest
from scripts import TOOLS, load_script


@pytest.fixture(scope="module")
def study(request):
    """The script as a module: study_zoo.py for test_study_zoo.py."""
    return load_script(TOOLS / request.path.name.removeprefix("test_"))

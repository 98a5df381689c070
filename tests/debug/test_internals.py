import pytest

from headstart.debug import internals
from headstart.errors import HeadstartError


@pytest.mark.parametrize("name", internals.PRIVATE_NAMES)
def test_the_installed_release_keeps_the_name_where_it_is_looked_for(name):
    assert internals.private(name) is not None


def test_a_moved_name_is_reported_with_its_module(monkeypatch):
    monkeypatch.setitem(internals.PRIVATE_NAMES, "Moved", "tensorflow.python.gone:Moved")
    with pytest.raises(HeadstartError, match=r"tensorflow\.python\.gone has no Moved"):
        internals.private("Moved")

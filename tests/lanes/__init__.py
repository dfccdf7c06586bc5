"""``python -m tests.lanes [PYTEST ARGUMENT...]``: the tests in several lanes beside each other.

Most tests wait: for a real call in real time. A *lane* is a pytest process with a network, a folder
and a part of the test files of its own. ``plan`` says who runs what when (pure), ``isolation``
gives a lane its network, ``lane`` is the process, ``controller`` the pytest in front of them,
which collects, hands out, and reports as pytest does.
"""

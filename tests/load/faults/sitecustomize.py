"""Deliberate faults in a node's processes, for negative controls: Python imports this at its start.

``CALLSHIELD_TEST_FAULT`` chooses: ``leak`` keeps :data:`_LEAK_BYTES` of memory and an open file of
every call that ends, in the notifier; ``lose`` loses a single event that says that a call
began, was answered or ended, on its way into the notifier. Every call has these, and nothing else
says the same: whichever it is, the record is wrong.
"""

import os

#: Of one call.
_LEAK_BYTES = 100 * 1024
_kept: list[object] = []


def _leak() -> None:
    _kept.append(bytearray(os.urandom(64) * (_LEAK_BYTES // 64)))
    _kept.append(open(os.devnull, "rb"))  # noqa: SIM115 # never closed: that is the fault


def _install(fault: str) -> None:
    from callshield.messages import CallAnswered, CallEnded, CallStarted, Event
    from notifier.board import Board
    from notifier.live import Entry

    apply = Board.apply
    count = 0

    def faulty(self: Board, event: Event) -> list[Entry]:
        nonlocal count
        if fault == "lose" and isinstance(event, (CallStarted, CallAnswered, CallEnded)):
            count += 1
            if count == 10:
                return []
        if fault == "leak" and isinstance(event, CallEnded):
            _leak()
        return apply(self, event)

    Board.apply = faulty  # type: ignore[method-assign]


_fault = os.environ.get("CALLSHIELD_TEST_FAULT", "")
# sys.argv is not there yet: the command line is read from the kernel.
with open("/proc/self/cmdline", "rb") as _file:
    _command = _file.read().split(b"\0")
if _fault and b"notifier.process" in _command:
    _install(_fault)

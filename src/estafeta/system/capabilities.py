"""Giving up what a process could win back: capabilities, and the power of setuid programs.

Source: capabilities(7), prctl(2) PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_SET_NO_NEW_PRIVS. Linux only; elsewhere nothing happens.
Invariant: what the kernel refuses or does not know (a container without CAP_SETPCAP, an old kernel) is left as it is: the change
of the user, which comes with it, is what counts.
"""

from __future__ import annotations

import ctypes
import sys

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522
_HIGHEST = 63

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # loaded by the master: a jail has no libraries


def close_bounding_set() -> None:
    """No program that this process might start gets a capability again. While still root."""
    if _LIBC is None:
        return
    for number in range(_HIGHEST + 1):
        if _LIBC.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) < 0:
            break  # the kernel has no more of them
        _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def renounce() -> None:
    """Drop every capability, and never gain anything by executing a program. After the change of the user."""
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _LIBC.capset(header, nothing)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

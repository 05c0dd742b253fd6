"""Which system calls a seccomp filter lets through: classic BPF, run with the arguments left open.

A filter sees the number and the architecture, which are given here, and the arguments and the instruction pointer,
which may be anything. Where the program branches on what is not known, both ways are gone; what is found is what the
filter *can* answer for some arguments. On the way of an equality the value is known. Pure.

Source: seccomp(2); include/uapi/linux/{filter,bpf_common,seccomp}.h, Linux 6.1.
"""

import operator
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

ALLOW, LOG, USER_NOTIF, ERRNO = 0x7FFF0000, 0x7FFC0000, 0x7FC00000, 0x00050000

_ACTION_MASK = 0xFFFF0000
_INSTRUCTION = struct.Struct("=HBBI")
_WORD = 0xFFFFFFFF
_NR_OFFSET, _ARCH_OFFSET = 0, 4
_DATA_BYTES = 64
_SCRATCH_WORDS = 16
# LIMIT: the kernel takes 4096 instructions; a filter whose ways multiply beyond this is not libseccomp's
_MAX_STATES = 200_000

_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_IMM, _ABS, _MEM, _LEN = 0x00, 0x20, 0x60, 0x80
_FROM_X, _FROM_A = 0x08, 0x10
_NEG = 0x80
_JA, _JEQ, _JGT, _JGE, _JSET = 0x00, 0x10, 0x20, 0x30, 0x40
_TAX, _TXA = 0x00, 0x80

_ALU_OPERATIONS: dict[int, Callable[[int, int], int]] = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    0x30: operator.floordiv,
    0x40: operator.or_,
    0x50: operator.and_,
    0x60: lambda value, bits: value << bits if bits < 32 else 0,
    0x70: lambda value, bits: value >> bits if bits < 32 else 0,
    0x90: operator.mod,
    0xA0: operator.xor,
}
_COMPARISONS: dict[int, Callable[[int, int], bool]] = {
    _JEQ: operator.eq,
    _JGT: operator.gt,
    _JGE: operator.ge,
    _JSET: lambda value, bits: bool(value & bits),
}

Program = Sequence[tuple[int, int, int, int]]


class _State(NamedTuple):
    """Where a way through the program stands; None is a value that is not known."""

    at: int
    a: int | None
    x: int | None
    memory: tuple[int | None, ...]


def decode(data: bytes) -> Program:
    """Read an array of struct sock_filter, native byte order.

    Raises:
        ValueError: It is no such array.
    """
    if not data or len(data) % _INSTRUCTION.size:
        raise ValueError("not a whole number of instructions")
    return [tuple(fields) for fields in _INSTRUCTION.iter_unpack(data)]


def actions(program: Program, number: int, arch: int) -> frozenset[int]:
    """Say what a filter can answer to a system call.

    Args:
        program: The filter.
        number: Of the system call.
        arch: AUDIT_ARCH_* value.

    Returns:
        Actions, without their data: ALLOW, ERRNO, ...

    Raises:
        ValueError: The program is not one that the kernel would take.
    """
    found: set[int] = set()
    waiting = [_State(0, 0, 0, (0,) * _SCRATCH_WORDS)]
    seen: set[_State] = set()
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        if len(seen) > _MAX_STATES:
            raise ValueError("too many ways")
        if state.at >= len(program):
            raise ValueError("runs over its end")
        answer, following = _step(program, state, number, arch)
        found |= answer
        waiting += following
    return frozenset(found)


def _step(program: Program, state: _State, number: int, arch: int) -> tuple[set[int], list[_State]]:
    code, jt, jf, k = program[state.at]
    kind = code & 0x07
    at = state.at + 1
    if kind == _RET:
        value = state.a if code & 0x18 == _FROM_A else k
        return {ALLOW if value is None else value & _ACTION_MASK}, []
    if kind == _JMP:
        return set(), _jump(state, code, jt, jf, k)
    if kind in (_LD, _LDX):
        value = _load(state, code & 0xE0, k, number, arch)
        return set(), [state._replace(at=at, a=value) if kind == _LD else state._replace(at=at, x=value)]
    if kind in (_ST, _STX):
        memory = list(state.memory)
        memory[k] = state.a if kind == _ST else state.x
        return set(), [state._replace(at=at, memory=tuple(memory))]
    if kind == _ALU:
        return set(), [state._replace(at=at, a=_calculate(state, code, k))]
    if code & 0xF8 == _TXA:
        return set(), [state._replace(at=at, a=state.x)]
    return set(), [state._replace(at=at, x=state.a)]


def _load(state: _State, mode: int, k: int, number: int, arch: int) -> int | None:
    if mode == _IMM:
        return k
    if mode == _MEM:
        return state.memory[k]
    if mode == _LEN:
        return _DATA_BYTES
    if mode != _ABS or k % 4 or k >= _DATA_BYTES:
        raise ValueError(f"loads from {k}")
    return {_NR_OFFSET: number & _WORD, _ARCH_OFFSET: arch}.get(k)


def _calculate(state: _State, code: int, k: int) -> int | None:
    operation = code & 0xF0
    if operation == _NEG:
        return None if state.a is None else -state.a & _WORD
    operand = state.x if code & _FROM_X else k
    if state.a is None or operand is None:
        return None
    if operation in (0x30, 0x90) and operand == 0:
        return 0
    return _ALU_OPERATIONS[operation](state.a, operand) & _WORD


def _jump(state: _State, code: int, jt: int, jf: int, k: int) -> list[_State]:
    operation, at = code & 0xF0, state.at + 1
    if operation == _JA:
        return [state._replace(at=at + k)]
    operand = state.x if code & _FROM_X else k
    if state.a is not None and operand is not None:
        return [state._replace(at=at + (jt if _COMPARISONS[operation](state.a, operand) else jf))]
    taken = state._replace(at=at + jt, a=operand if operation == _JEQ else state.a)
    return [taken, state._replace(at=at + jf)]


def can_pass(programs: Sequence[Program], number: int, arch: int) -> bool:
    """Say whether filters, of which the strictest decides, let a system call through for some arguments.

    Being put before a supervisor (USER_NOTIF) is not counted: it is the supervisor who acts then.
    """
    return all(actions(program, number, arch) & {ALLOW, LOG} for program in programs)

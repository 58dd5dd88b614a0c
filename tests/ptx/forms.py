"""Instructions that compute: every opcode that is known, and what its operands are.

An opcode is a function of instructions.h of the same name, its types as template arguments. Letters of operands, the
destination first: ``t`` the (first) type, ``f`` the second, ``u`` u32, ``i`` s32, ``w`` twice as wide, ``p`` a
predicate, ``c`` the carry flag, which is not written in PTX.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

SETS = {
    "I": "u16 u32 u64 s16 s32 s64",
    "X": "u32 u64 s32 s64",
    "N": "u32 s32",
    "S": "s16 s32 s64",
    "A": "u8 u16 u32 u64 s8 s16 s32 s64",
    "B": "b16 b32 b64",
    "W": "b32 b64",
    "F": "f32 f64",
    "R": "rn rz rm rp",
    "Q": "rni rzi rmi rpi",
    "Y": "b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64",
}
"""Types and rounding modes by a letter in braces."""

PATTERNS = """
add.{I} sub.{I} mul.lo.{I} mul.hi.{I} div.{I} rem.{I} min.{I} max.{I}                           ttt
add.sat.s32 sub.sat.s32                                                                          ttt
mul.wide.u16 mul.wide.u32 mul.wide.s16 mul.wide.s32                                              wtt
mad.lo.{I} mad.hi.{I} mad.hi.sat.s32 sad.{I}                                                     tttt
mad.wide.u16 mad.wide.u32 mad.wide.s16 mad.wide.s32                                              wttw
add.cc.{X} addc.{X} addc.cc.{X} sub.cc.{X} subc.{X} subc.cc.{X}                                  tttc
mad.lo.cc.{X} mad.hi.cc.{X} madc.lo.{X} madc.hi.{X} madc.lo.cc.{X} madc.hi.cc.{X}                ttttc
neg.{S} abs.{S} neg.{F} abs.{F}                                                                  tt
add.{R}.{F} sub.{R}.{F} mul.{R}.{F} div.{R}.{F} min.{F} max.{F} copysign.{F}                     ttt
fma.{R}.{F}                                                                                      tttt
sqrt.{R}.{F} rcp.{R}.{F} rcp.approx.ftz.f64 rsqrt.approx.ftz.f64                                 tt
and.{B} or.{B} xor.{B} and.pred or.pred xor.pred                                                 ttt
not.{B} not.pred cnot.{B} brev.{W}                                                               tt
shl.{B} shr.{B} shr.{I}                                                                          ttu
bfe.{X}                                                                                          ttuu
bfi.{W}                                                                                          tttuu
bmsk.clamp.b32 bmsk.wrap.b32                                                                     ttt
popc.{W} clz.{W} bfind.{X} bfind.shiftamt.{X}                                                    ut
fns.b32                                                                                          ttui
shf.l.wrap.b32 shf.r.wrap.b32 shf.l.clamp.b32 shf.r.clamp.b32                                    tttu
lop3.b32                                                                                         ttttu
prmt.b32                                                                                         tttt
selp.{Y}                                                                                         tttp
slct.{Y}.s32 slct.{Y}.f32                                                                        tttf
testp.finite.{F} testp.infinite.{F} testp.number.{F} testp.notanumber.{F} testp.normal.{F} testp.subnormal.{F}  pt
cvt.{A}.{A} cvt.sat.{A}.{A} cvt.{R}.{F}.{A} cvt.{Q}.{A}.{F} cvt.{R}.f32.f64 cvt.f64.f32          tf
cvt.{Q}.f32.f32 cvt.{Q}.f64.f64                                                                  tf
"""
"""Opcodes and the operands that they have in common."""

CONTRACTIBLE = "add.{F} sub.{F} mul.{F}"
"""Without a rounding mode: ptxas may contract them."""

RESERVED = {"and", "or", "xor", "not"}
"""Words of C++."""


@dataclass(frozen=True)
class Form:
    """How an opcode is called.

    Attributes
    ----------
    function : str
        In C++, with template arguments.
    types : tuple of str
    operands : str
        A letter each, the destination first.
    """

    function: str
    types: tuple[str, ...]
    operands: str

    def type_of(self, letter: str) -> str:
        """The C++ type that a letter stands for."""
        if letter == "w":
            return f"Wide<{self.types[0]}>"
        return {"t": self.types[0], "f": self.types[-1], "u": "u32", "i": "s32", "p": "bool"}[letter]


def expanded(pattern: str) -> list[str]:
    """Opcodes of a pattern, every set in braces replaced by each of its members."""
    parts = re.split(r"\{(\w)\}", pattern)
    choices = [SETS[part].split() if n % 2 else [part] for n, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _form(opcode: str, operands: str) -> Form:
    head, *modifiers = opcode.split(".")
    types = tuple(m for m in modifiers if re.fullmatch(r"[busf]\d+|pred", m))
    name = "_".join([head, *(m for m in modifiers if m not in types)])
    name += "_" if name in RESERVED else ""
    return Form(f"{name}<{', '.join(types)}>", types, operands)


def _forms(patterns: str) -> dict[str, Form]:
    found: dict[str, Form] = {}
    for line in patterns.strip().splitlines():
        *opcodes, operands = line.split()
        for pattern in opcodes:
            found |= {opcode: _form(opcode, operands) for opcode in expanded(pattern)}
    return found


FORMS = _forms(PATTERNS)
CONTRACTIBLE_FORMS = {
    opcode: Form(f"{head}_rn<{kind}>", (kind,), "ttt")
    for pattern in CONTRACTIBLE.split()
    for opcode in expanded(pattern)
    for head, kind in [opcode.split(".")]
}

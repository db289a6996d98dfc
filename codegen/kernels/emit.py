"""Small pieces of LLVM IR that the executor's functions share: loops, and words of tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from .arithmetic import I64_TYPE, POINTER


def word(value: int) -> ir.Constant:
    return ir.Constant(I64_TYPE, value)


class Emitter:
    """One function of 64-bit arguments; `b` adds to its end. Without `returns` the result is void."""

    def __init__(self, module: ir.Module, name: str, arguments: int, returns: ir.Type | None = None) -> None:
        kind = ir.FunctionType(returns or ir.VoidType(), [I64_TYPE] * arguments)
        self.module = module
        self.function = ir.Function(module, kind, name)
        self.function.attributes.add("nounwind")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

    def at(self, base: ir.Value, index: ir.Value | int) -> ir.Value:
        """The word number `index` of the table at address `base`."""
        return self.b.load(self._word(base, index), typ=I64_TYPE, align=8)

    def put(self, base: ir.Value, index: ir.Value | int, value: ir.Value) -> None:
        """Stores the word number `index` of the table at address `base`."""
        self.b.store(value, self._word(base, index), align=8)

    def _word(self, base: ir.Value, index: ir.Value | int) -> ir.Value:
        i = word(index) if isinstance(index, int) else index
        return self.b.gep(self.b.inttoptr(base, POINTER), [i], source_etype=I64_TYPE)

    def loop(self, start: ir.Value, end: ir.Value, body: Callable[[ir.Value], None], step: int = 1) -> None:
        """`body(i)` for i = start, start + step, ... below end."""
        b = self.b
        before, head, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", start, end), head, after)
        b.position_at_end(head)
        i = b.phi(I64_TYPE)
        i.add_incoming(start, before)
        body(i)
        following = b.add(i, word(step))
        i.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, end), head, after)
        b.position_at_end(after)

    def when(
        self, condition: ir.Value, then: Callable[[], None], otherwise: Callable[[], None] | None = None
    ) -> None:
        b = self.b
        inside, after = b.append_basic_block("then"), b.append_basic_block("after")
        other = b.append_basic_block("otherwise") if otherwise else after
        b.cbranch(condition, inside, other)
        b.position_at_end(inside)
        then()
        b.branch(after)
        if otherwise:
            b.position_at_end(other)
            otherwise()
            b.branch(after)
        b.position_at_end(after)

    def call(self, address: ir.Value, arguments: Sequence[ir.Value]) -> None:
        """Calls the function at an address."""
        kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
        self.b.call(self.b.inttoptr(address, kind.as_pointer()), list(arguments))


def declared(module: ir.Module, name: str, kind: ir.FunctionType) -> ir.Value:
    """The external function `name`, declared once in a module."""
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, kind, name)


def reporter(module: ir.Module) -> ir.Value:
    """The module's function that widens a report, two words, by an element outside its bound.

    Whatever the threads and the order, the least and the largest are left.
    """
    name = "report_outside"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64_TYPE] * 2), name)
    function.linkage = "internal"
    for attribute in ("noinline", "cold", "nounwind"):
        function.attributes.add(attribute)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    report, element = function.args
    for i, kind in enumerate(("min", "max")):
        b.atomic_rmw(kind, b.inttoptr(b.add(report, word(8 * i)), POINTER), element, "monotonic")
    b.ret_void()
    return function

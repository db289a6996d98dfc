"""The simulator, as LLVM IR: `simulate(tables)` carries each wavelet over each link until all tasks have
ended.

Cycle by cycle it looks at the nodes that have wavelets to serve. A node serves the next one when all before
it have served theirs and it is through their latency, when its resource is free, and when every node behind
it has room: a queue holds what is on its way and a few more. What nothing can move any more, and two meanings
of a colour at a router, end it. `ORDER` says what `tables` points to.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ..kernels.arithmetic import I64_TYPE
from ..kernels.emit import Emitter, word
from .words import FINISHED, STUCK, TICKS, TWO_WAYS, WAITS, Found

# Addresses of tables of words, in this order; the last ones are numbers themselves.
ORDER = (
    *("core", "cycles", "waits", "ready", "begin", "end", "queue", "queues", "head", "core_free"),
    *("starts_at", "starts", "follows_at", "follows", "arrives_at", "arrives"),
    *("resource", "service", "latency", "count", "place", "meaning", "room"),
    *("trigger", "served", "times", "active", "free", "meant", "meant_at"),
    *("before_at", "before", "after_at", "after", "stack", "found"),
    *("tasks", "node_count", "ring"),
)
NEVER = (1 << 62) - 1


def make_simulator() -> str:
    """LLVM IR of `simulate`."""
    module = ir.Module("wavelets")
    _Simulator(module).emit()
    return str(module)


class _Simulator(Emitter):
    """`simulate`. A variable is a word on the stack, a table a name of `ORDER`."""

    def __init__(self, module: ir.Module) -> None:
        super().__init__(module, "simulate", 1)
        base = self.function.args[0]
        self.table = {name: self.at(base, i) for i, name in enumerate(ORDER)}
        names = (
            "now",
            "limit",
            "next",
            "moved",
            "active",
            "kept",
            "i",
            "top",
            "done",
            "ready",
            "open",
            "going",
        )
        self.slot = {name: self.b.alloca(I64_TYPE, name=name) for name in names}

    # -- words ---------------------------------------------------------------------------------------
    def get(self, name: str) -> ir.Value:
        return self.b.load(self.slot[name], typ=I64_TYPE)

    def set(self, name: str, value: ir.Value | int) -> None:
        self.b.store(word(value) if isinstance(value, int) else value, self.slot[name])

    def read(self, table: str, index: ir.Value) -> ir.Value:
        return self.at(self.table[table], index)

    def write(self, table: str, index: ir.Value | int, value: ir.Value | int) -> None:
        self.put(self.table[table], index, word(value) if isinstance(value, int) else value)

    def more(self, name: str, by: int = 1) -> None:
        self.set(name, self.b.add(self.get(name), word(by)))

    def greatest(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed(">", a, b), a, b)

    def raised(self, table: str, index: ir.Value, value: ir.Value) -> None:
        self.write(table, index, self.greatest(self.read(table, index), value))

    def is_(self, relation: str, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self.b.icmp_signed(relation, a, word(b) if isinstance(b, int) else b)

    # -- control -------------------------------------------------------------------------------------
    def repeat(self, condition: Callable[[], ir.Value], body: Callable[[], None]) -> None:
        """`body` while the condition holds."""
        b = self.b
        head, inside, after = (b.append_basic_block(n) for n in ("while", "do", "done"))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(condition(), inside, after)
        b.position_at_end(inside)
        body()
        b.branch(head)
        b.position_at_end(after)

    def each(self, table: str, index: ir.Value, body: Callable[[ir.Value], None]) -> None:
        """`body(v)` for each number in the list of `index`."""
        first, last = (self.read(f"{table}_at", i) for i in (index, self.b.add(index, word(1))))
        self.loop(first, last, lambda i: body(self.read(table, i)))

    def ends(self, code: int, node: ir.Value | int = -1) -> None:
        self.write("found", Found.CODE, code)
        self.write("found", Found.TIME, self.get("now"))
        self.write("found", Found.NODE, node)
        self.set("going", 0)

    # -- tasks ---------------------------------------------------------------------------------------
    def push(self, task: ir.Value) -> None:
        self.write("stack", self.get("top"), task)
        self.more("top")

    def arrived(self, task: ir.Value, time: ir.Value) -> None:
        """One of what a task waits for is there."""
        self.raised("ready", task, time)
        left = self.b.sub(self.read("waits", task), word(1))
        self.write("waits", task, left)
        self.when(self.is_("==", left, 0), lambda: self.push(task))

    def finish(self, task: ir.Value, begin: ir.Value, end: ir.Value) -> None:
        self.write("begin", task, begin)
        self.write("end", task, end)
        self.more("done")

        def start(node: ir.Value) -> None:
            self.write("trigger", node, end)
            self.activate(node)

        self.each("starts", task, start)
        self.each("follows", task, lambda other: self.arrived(other, end))

    def activate(self, node: ir.Value) -> None:
        """Puts a node among those that have wavelets to serve; it is there once."""
        missing = self.is_("<", self.read("served", node), 0)

        def put() -> None:
            self.write("served", node, 0)
            self.write("active", self.get("active"), node)
            self.more("active")

        self.when(missing, put)

    def settle(self) -> None:
        """Starts all tasks that nothing keeps any more: their ends are known at once."""

        def next_task() -> None:
            self.more("top", -1)
            task = self.read("stack", self.get("top"))
            core = self.read("core", task)

            def at_once() -> None:
                time = self.read("ready", task)
                self.finish(task, time, time)

            def on_core() -> None:
                last = self.read("queues", self.b.add(core, word(1)))

                def may() -> ir.Value:
                    head = self.read("head", core)
                    inside = self.is_("<", head, last)
                    safe = self.b.select(inside, head, word(0))
                    waits = self.read("waits", self.read("queue", safe))
                    return self.b.and_(inside, self.is_("==", waits, 0))

                def run() -> None:
                    head = self.read("head", core)
                    own = self.read("queue", head)
                    begin = self.greatest(self.read("ready", own), self.read("core_free", core))
                    end = self.b.add(begin, self.read("cycles", own))
                    self.write("core_free", core, end)
                    self.write("head", core, self.b.add(head, word(1)))
                    self.finish(own, begin, end)

                self.repeat(may, run)

            self.when(self.is_("<", core, 0), at_once, on_core)

        self.repeat(lambda: self.is_(">", self.get("top"), 0), next_task)

    # -- wavelets ------------------------------------------------------------------------------------
    def serve(self, node: ir.Value) -> None:
        """Serves what the node can in this cycle."""
        b = self.b
        count, resource = self.read("count", node), self.read("resource", node)
        service, room = self.read("service", node), self.read("room", node)
        ring = self.table["ring"]
        slots = b.mul(node, ring)
        mask = b.sub(ring, word(1))

        def try_one() -> None:
            k = self.read("served", node)
            trigger = self.read("trigger", node)
            self.set("ready", trigger)
            self.when(self.is_("<", trigger, 0), lambda: self.set("open", 0))

            def hears(other: ir.Value) -> None:
                number = b.add(k, b.sub(self.read("count", other), count))
                slot = b.add(b.mul(other, ring), b.and_(number, mask))
                there = b.add(self.read("times", slot), self.read("latency", other))
                self.set("ready", self.greatest(self.get("ready"), there))
                missing = self.is_(">=", number, self.read("served", other))
                self.when(missing, lambda: self.set("open", 0))

            def leaves_room(other: ir.Value) -> None:
                number = b.sub(k, b.sub(count, self.read("count", other)))
                taken = self.greatest(self.read("served", other), word(0))
                full = b.and_(self.is_(">=", number, 0), self.is_(">=", b.sub(number, taken), room))
                self.when(full, lambda: self.set("open", 0))

            self.each("before", node, hears)
            self.each("after", node, leaves_room)
            start = self.greatest(
                self.greatest(self.get("ready"), self.read("free", resource)), self.get("now")
            )
            later = b.and_(self.is_("!=", self.get("open"), 0), self.is_(">=", start, self.get("limit")))

            def wait() -> None:
                self.set("open", 0)
                earlier = self.is_("<", start, self.get("next"))
                self.set("next", b.select(earlier, start, self.get("next")))

            self.when(later, wait)
            self.when(self.is_("!=", self.get("open"), 0), lambda: take(k, start))

        def take(k: ir.Value, start: ir.Value) -> None:
            self.write("times", b.add(slots, b.and_(k, mask)), start)
            self.write("free", resource, b.add(start, service))
            served = b.add(k, word(1))
            self.write("served", node, served)
            self.set("moved", 1)

            def enters() -> None:
                self.when(self.is_(">=", self.read("place", node), 0), lambda: self.mean(node, start))
                self.each("after", node, self.activate)

            self.when(self.is_("==", k, 0), enters)

            def all_served() -> None:
                self.set("open", 0)
                there = b.add(start, self.read("latency", node))
                self.each("arrives", node, lambda task: self.arrived(task, there))
                self.settle()

            self.when(self.is_("==", served, count), all_served)

        self.set("open", 1)
        self.repeat(lambda: self.is_("!=", self.get("open"), 0), try_one)

    def mean(self, node: ir.Value, time: ir.Value) -> None:
        """A colour means one thing at a router: the first stream that enters says what."""
        place = self.read("place", node)
        known = self.read("meant", place)

        def first() -> None:
            self.write("meant", place, node)
            self.write("meant_at", place, time)

        def again() -> None:
            differs = self.is_("!=", self.read("meaning", known), self.read("meaning", node))

            def two_ways() -> None:
                self.ends(TWO_WAYS, node)
                self.write("found", Found.TIME, time)
                self.write("found", Found.OTHER, known)
                self.write("found", Found.OTHER_TIME, self.read("meant_at", place))

            self.when(differs, two_ways)

        self.when(self.is_("<", known, 0), first, again)

    # -- the whole -----------------------------------------------------------------------------------
    def emit(self) -> None:
        b = self.b
        for name in ("now", "active", "top", "done"):
            self.set(name, 0)
        self.set("going", 1)

        def ready(task: ir.Value) -> None:
            self.when(self.is_("==", self.read("waits", task), 0), lambda: self.push(task))

        self.loop(word(0), self.table["tasks"], ready)
        self.settle()
        self.repeat(lambda: self.is_("!=", self.get("going"), 0), self.cycle)
        b.ret_void()

    def cycle(self) -> None:
        b = self.b
        self.set("limit", b.add(self.get("now"), word(TICKS)))
        self.set("next", NEVER)
        for name in ("moved", "kept", "i"):
            self.set(name, 0)

        def one() -> None:
            node = self.read("active", self.get("i"))
            self.serve(node)

            def keep() -> None:
                self.write("active", self.get("kept"), node)
                self.more("kept")

            self.when(self.is_("<", self.read("served", node), self.read("count", node)), keep)
            self.more("i")

        self.repeat(lambda: self.is_("<", self.get("i"), self.get("active")), one)
        self.set("active", self.get("kept"))
        none_left = self.is_("==", self.get("active"), 0)

        def over() -> None:
            all_done = self.is_("==", self.get("done"), self.table["tasks"])
            self.when(all_done, lambda: self.ends(FINISHED), lambda: self.ends(WAITS))

        def onward() -> None:
            still = self.is_("==", self.get("moved"), 0)
            stuck = b.and_(still, self.is_("==", self.get("next"), NEVER))
            jump = b.mul(b.sdiv(self.get("next"), word(TICKS)), word(TICKS))
            self.set("limit", b.select(still, jump, self.get("limit")))
            self.when(stuck, lambda: self.ends(STUCK, self.read("active", word(0))), self.advance)

        found = self.is_("==", self.get("going"), 0)
        self.when(found, lambda: None, lambda: self.when(none_left, over, onward))

    def advance(self) -> None:
        self.set("now", self.get("limit"))

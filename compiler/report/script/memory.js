// A core's memory along a call: which bytes are live from when to when, and the peak.

// The lives of a core's buffers in schedule positions, and in cycles of that core: {buffer, column, row, from, until}.
function livesOf(plan, core, running = plan.running(core)) {
  const order = [...running].sort((a, b) => a.step.number - b.step.number);
  return plan.buffersAt(core).map(({ buffer, column, row }) => {
    if (buffer.always) return { buffer, column, row, from: 0, until: plan.cycles };
    const first = order.find((t) => t.step.number >= buffer.live[0]);
    const last = order.filter((t) => t.step.number <= buffer.live[1]).pop();
    const from = first ? first.start : plan.cycles;
    return { buffer, column, row, from, until: last && last.end > from ? last.end : from };
  });
}

// Bytes of code and live buffers at the start of each step that the core runs: [{start, step, bytes}] by start.
function useOf(plan, core, running = plan.running(core)) {
  const last = plan.steps.length, change = new Float64Array(last + 2);
  const count = (from, until, bytes) => {
    if (from > until) return;
    change[Math.max(0, from)] += bytes;
    change[Math.min(last, until) + 1] -= bytes;
  };
  const span = (b) => (b.always ? [0, last] : b.live);
  for (const { buffer: b } of plan.buffersAt(core)) {
    count(...span(b), b.bytes);
    if (b.over >= 0) { // while both live they share one address
      const base = plan.buffers[b.over];
      count(Math.max(span(b)[0], span(base)[0]), Math.min(span(b)[1], span(base)[1]), -Math.min(b.bytes, base.bytes));
    }
  }
  const used = new Float64Array(last + 2);
  for (let i = 0, sum = plan.codeAt(core); i < used.length; i++) used[i] = sum += change[i];
  return running.map((t) => ({ start: t.start, step: t.step, bytes: used[t.step.number] })).sort((a, b) => a.start - b.start || a.step.number - b.step.number);
}

// The moment at which most is live.
function peakOf(use) {
  return use.reduce((best, u) => (!best || u.bytes > best.bytes ? u : best), null);
}

"""Where a model goes: the wafer and its cost model, splits, regions, moves, routes, SRAM, the plan.

Its wings, from the ground: `machine`, `plan`, `cost` and `judge`, `splits`, `build`, `search`, then
`planner`, where a reader starts.
"""

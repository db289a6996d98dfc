"""Where a model goes: the wafer and its cost model, splits, regions, moves, routes, SRAM, the plan.

A reader starts at `planner`, then follows the steps in its order; `plan.Plan.check` is the judge.
"""

"""The judge of plans, apart from the planner: it imports plan and machine, and nothing else of placement."""

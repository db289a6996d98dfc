"""What a core runs: ops' bodies as kernels in LLVM IR, the plan's tables, the artifact.

A reader starts at `kernels`, then `builder`, then `arithmetic` and `addresses`.
"""

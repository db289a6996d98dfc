"""A task's arithmetic in LLVM IR. Starts at `kernel`, then `builder`, `arithmetic` and `addresses`."""

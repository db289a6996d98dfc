"""Running a program: native code, the cores' SRAM, the executor, and traces."""

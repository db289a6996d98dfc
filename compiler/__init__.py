"""The way in and out: the ONNX importer, graph passes, the pipeline, reports and the command line.

A reader starts at `pipeline`; `request` has every option of a compile.
"""

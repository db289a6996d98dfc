"""What a model is: tensors, operations with affine accesses, and graphs of them.

This package imports nothing else of waferc. A reader starts at `graph`, then
`op`, then one family in `ops`.
"""

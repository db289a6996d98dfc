"""waferc.compiler"""

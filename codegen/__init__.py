"""waferc.codegen"""

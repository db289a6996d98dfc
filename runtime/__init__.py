"""waferc.runtime"""

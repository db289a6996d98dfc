"""waferc.placement"""

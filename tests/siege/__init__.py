"""A permanent siege: hostile models, programs and inputs against the command line, in processes with limits."""

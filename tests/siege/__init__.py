"""A permanent siege: hostile models, programs and inputs meet the command line, in processes with limits."""

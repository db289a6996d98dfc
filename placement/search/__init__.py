"""Which splits and regions: searched for, built, compared."""

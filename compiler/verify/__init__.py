"""Programs beside other runtimes: numbers and speed."""

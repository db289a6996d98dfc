"""What runs on the host: operators that no wafer runs, and the stages that they cut a model into."""

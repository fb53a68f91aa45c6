"""What `jobs/gpu_check.sh` does, step by step, where there is a GPU."""

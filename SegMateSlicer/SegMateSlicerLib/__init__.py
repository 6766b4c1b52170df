"""What stands behind the panel: exchange with the scene, the worker, runs, checkpoints, dependencies."""

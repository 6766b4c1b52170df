"""How good a segmentation is: metrics, evaluation of many cases, comparisons, the report."""

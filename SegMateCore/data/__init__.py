"""Training and test data: synthetic CTs with truth, public datasets' layouts, stores and augmentation."""

"""Data sets: named ones, files and arrays; splits, binarization, minibatches."""
